//! Templates of webhook bodies (Jinja, by minijinja), compiled once and tried before they are accepted.

use std::fmt;
use std::sync::Arc;

use minijinja::Environment;
use serde::Serialize;
use thiserror::Error;

/// The longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 64 * 1024;
const NAME: &str = "body";

/// A compiled template.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot be used as a template: {0}")]
pub struct TemplateError(String);

impl Template {
    /// Compiles it.
    ///
    /// # Errors
    /// It is not well-formed.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| TemplateError(describe(&error)))?;
        Ok(Self { source: source.into(), environment: Arc::new(environment) })
    }

    /// The body that it makes of these values.
    ///
    /// # Errors
    /// It asks for something that there is not.
    pub fn render(&self, values: &impl Serialize) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| TemplateError(describe(&error)))?;
        template.render(values).map_err(|error| TemplateError(describe(&error)))
    }
}

/// The error without the text around it, which may hold a secret.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Template {}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_quoted_by_the_filter_for_json() {
        let template = Template::new(r#"{"text": {{ text | tojson }}}"#).unwrap();
        let body = template.render(&json!({"text": "a \"quote\"\nand a line"})).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["text"], "a \"quote\"\nand a line");
    }

    #[test]
    fn what_is_misspelt_is_told_and_not_left_empty() {
        assert!(Template::new("{{ text").is_err());
        let error = Template::new("\n{{ txet }}").unwrap().render(&json!({"text": "x"})).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
