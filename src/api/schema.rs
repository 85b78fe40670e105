//! Schemas of what the OpenAPI document has to tell and other parts define, which know nothing of OpenAPI.

use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::body::Reason;
use crate::config::{SETTINGS, SettingDefinition, SettingKind};

/// The type of an instance.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "stands for the engine's own type in the document")]
pub(super) enum TypeName {
    Pve,
    Pbs,
    Pmg,
    Http,
    Tcp,
}

/// The key of an instance: `type::name`.
#[derive(ToSchema)]
#[schema(pattern = r"^(http|pbs|pmg|pve|tcp)::[^\x00-\x1f\x7f-\x9f]{1,50}$")]
#[expect(dead_code, reason = "stands for the engine's own type in the document")]
pub(super) struct KeyText(String);

/// Why an instance is dead-lettered.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "stands for the engine's own type in the document")]
pub(super) enum DeadLetterReasonName {
    MaxRetryAttempts,
    PermanentFailure,
}

/// The body of a change of settings: made from the table of all settings.
pub(super) struct SettingsRequest;

impl ToSchema for SettingsRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Reason::name().into_owned(), Reason::schema()));
    }
}

impl PartialSchema for SettingsRequest {
    fn schema() -> RefOr<Schema> {
        let reason = Ref::from_schema_name(Reason::name());
        let object = ObjectBuilder::new()
            .description(Some("Some settings by name; `null` means the default"))
            .property("reason", reason)
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        let with = |object: ObjectBuilder, setting: &SettingDefinition| object.property(setting.name, value(setting));
        SETTINGS.iter().fold(object, with).build().into()
    }
}

/// What one setting takes.
fn value(setting: &SettingDefinition) -> Object {
    let kinds = |kinds: &[Type]| SchemaType::from_iter(kinds.iter().cloned().chain([Type::Null]));
    let value = ObjectBuilder::new().description(Some(setting.help));
    match setting.kind() {
        SettingKind::Switch => value.schema_type(kinds(&[Type::Boolean])),
        SettingKind::Count(range) => {
            value.schema_type(kinds(&[Type::Integer])).minimum(Some(*range.start())).maximum(Some(*range.end()))
        }
        SettingKind::Span => value.schema_type(kinds(&[Type::String, Type::Number])),
    }
    .build()
}
