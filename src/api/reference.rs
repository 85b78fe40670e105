//! `docs/api.md`, written from the OpenAPI document and the table of routes, so that it cannot drift from either.

use std::fmt::Write;

use serde_json::Value;

use super::meta::openapi;
use super::routes::{Access, Kind, ROUTES, Route};

const HEAD: &str = "\
# API

Made from the handlers' own types and the table of routes; a test keeps this page equal to them. The same as an OpenAPI
document: `GET /api/openapi.json`.

- **Credentials.** Over TCP a token, as `Authorization: Bearer …` or `X-API-Token: …`; over the unix socket `pulse.sock` in the
  data folder none, since only the daemon's owner can open it. A role may do what the ones before it may: `viewer`,
  `operator`, `admin`.
- **Errors** are problem documents (RFC 9457, `application/problem+json`) with a `code` that never changes; a `detail` says
  what happened and what to do.
- **Limits.** 500 calls a minute for an address, 10 management calls a minute for a caller. Each answer has
  `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds); 429 has `Retry-After`.
- **Audit.** A call with an action is in the audit log, done or refused, before it is answered. What cannot be written there
  is not carried out: 503 with `storage_unavailable`, and nothing is changed.
- Times are RFC 3339 in UTC. What does not exist is `null`. A key is `type::name`, percent-encoded in paths or not.

";

/// The page.
pub fn reference_markdown() -> String {
    let document = serde_json::to_value(openapi()).unwrap_or_default();
    let schemas = &document["components"]["schemas"];
    let mut page = HEAD.to_owned();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        // Writing to a String cannot fail.
        let _ = describe(&mut page, route, operation, schemas);
    }
    page
}

fn describe(page: &mut String, route: &Route, operation: &Value, schemas: &Value) -> std::fmt::Result {
    writeln!(page, "## `{} {}`\n", route.method, route.path)?;
    for text in ["summary", "description"] {
        if let Some(text) = operation[text].as_str().filter(|text| !text.is_empty()) {
            writeln!(page, "{}\n", one_line(text))?;
        }
    }
    let role = match route.access {
        Access::Role(role) => format!("Role `{role}`"),
        Access::Public => "Open to everybody".to_owned(),
    };
    match route.kind {
        Kind::Read => writeln!(page, "{role}.\n")?,
        Kind::Change(action) => writeln!(page, "{role}. Audited as `{action}`.\n")?,
        Kind::Management(action) => writeln!(page, "{role}. A management call, audited as `{action}`.\n")?,
    }
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        writeln!(page, "| parameter | in | |\n| --- | --- | --- |")?;
        for parameter in parameters {
            let text = |name: &str| parameter[name].as_str().unwrap_or_default();
            writeln!(page, "| `{}` | {} | {} |", text("name"), text("in"), one_line(text("description")))?;
        }
        writeln!(page)?;
    }
    fields(page, "body", &operation["requestBody"]["content"]["application/json"]["schema"], schemas)?;
    let answers = operation["responses"].as_object();
    for (_, answer) in answers.into_iter().flatten().filter(|(status, _)| status.starts_with('2')) {
        fields(page, "answer", &answer["content"]["application/json"]["schema"], schemas)?;
    }
    writeln!(page, "| status | |\n| --- | --- |")?;
    for (status, answer) in answers.into_iter().flatten() {
        writeln!(page, "| {status} | {} |", one_line(answer["description"].as_str().unwrap_or_default()))?;
    }
    writeln!(page)
}

/// The fields of a type, those of the types within it behind their name and a dot.
fn fields(page: &mut String, title: &str, schema: &Value, schemas: &Value) -> std::fmt::Result {
    let mut rows = Vec::new();
    collect(&mut rows, "", schema, schemas);
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(page, "| {title} | type | |\n| --- | --- | --- |")?;
    for (name, kind, text) in rows {
        writeln!(page, "| `{name}` | {kind} | {text} |")?;
    }
    writeln!(page)
}

fn collect(rows: &mut Vec<(String, String, String)>, prefix: &str, schema: &Value, schemas: &Value) {
    let (schema, _) = resolve(schema, schemas);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(rows, prefix, part, schemas);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let (target, nullable) = resolve(property, schemas);
        let (list, item) = match target["type"] == "array" {
            true => ("[]", resolve(&target["items"], schemas).0),
            false => ("", target),
        };
        let name = format!("{prefix}{name}{list}");
        let text = property["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
        let kind = kind_of(item);
        let kind = if nullable { format!("{kind} or null") } else { kind };
        rows.push((name.clone(), kind, one_line(text)));
        collect(rows, &format!("{name}."), item, schemas);
    }
}

/// The type behind references and behind `null`, and whether it may be `null`.
fn resolve<'a>(schema: &'a Value, schemas: &'a Value) -> (&'a Value, bool) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return resolve(&schemas[name], schemas);
    }
    if let Some(choices) = schema["oneOf"].as_array().filter(|choices| choices.iter().any(|it| it["type"] == "null")) {
        let other = choices.iter().find(|it| it["type"] != "null");
        return other.map_or((schema, true), |other| (resolve(other, schemas).0, true));
    }
    let nullable = schema["type"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "null"));
    (schema, nullable)
}

fn kind_of(schema: &Value) -> String {
    if let Some(names) = schema["enum"].as_array() {
        let names: Vec<String> = names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        return names.join(", ");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    };
    match (kind, schema["format"].as_str()) {
        (Some("string"), Some("date-time")) => "time".to_owned(),
        (kind, _) => kind.unwrap_or("any").to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_handlers_say() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
        if std::env::var_os("UPDATE_PAGES").is_some() {
            std::fs::write(page, reference_markdown()).unwrap();
        }
        let found = std::fs::read_to_string(page).unwrap_or_default();
        assert_eq!(found, reference_markdown(), "run this test with UPDATE_PAGES=1 to write the page anew");
    }

    #[test]
    fn every_route_is_described() {
        let document = serde_json::to_value(openapi()).unwrap();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert!(operation["summary"].is_string(), "{route:?} is not in the OpenAPI document");
        }
    }
}
