//! Where spans are sent: the environment variables that OpenTelemetry defines.
//!
//! Headers, sampler, the service's name and resource attributes are read from theirs by the OpenTelemetry crates themselves.

use thiserror::Error;
use url::Url;

use crate::config::Environment;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpOptions {
    /// Where the collector takes traces.
    traces: Url,
}

/// Why spans cannot be exported.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The address is none.
    #[error(
        "the address of the OpenTelemetry collector, {0}, must be one of http:// or https://, such as http://localhost:4318"
    )]
    Address(&'static str),
    /// The address holds a secret, or what may be one.
    #[error(
        "the address of the OpenTelemetry collector, {0}, must hold neither user nor query; what authenticates the \
         daemon goes into OTEL_EXPORTER_OTLP_HEADERS"
    )]
    Secret(&'static str),
    /// The exporter cannot be made.
    #[error("spans cannot be exported: {0}")]
    Exporter(String),
}

impl OtlpOptions {
    /// What the environment says; `None` if it names no collector.
    ///
    /// # Errors
    /// The address of the collector cannot be used.
    pub fn of(environment: &Environment) -> Result<Option<Self>, OtlpError> {
        let text = |name| environment.get(name).and_then(std::ffi::OsStr::to_str);
        if text(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let parse = |name, value: &str| value.parse::<Url>().map_err(|_| OtlpError::Address(name));
        let traces = match (text(TRACES_ENDPOINT), text(ENDPOINT)) {
            (Some(traces), _) => checked(TRACES_ENDPOINT, parse(TRACES_ENDPOINT, traces)?)?,
            (None, Some(base)) => below(checked(ENDPOINT, parse(ENDPOINT, base)?)?),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { traces }))
    }

    /// The environment in which spans go to the collector at `base`, whatever it said before.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn prefer(base: Url, environment: Environment) -> Result<Environment, OtlpError> {
        let traces = below(checked("--otlp-endpoint", base)?);
        Ok(environment.with(TRACES_ENDPOINT, traces.as_str()))
    }

    /// Where the collector takes traces.
    pub(super) fn traces(&self) -> &str {
        self.traces.as_str()
    }
}

fn checked(name: &'static str, url: Url) -> Result<Url, OtlpError> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(OtlpError::Address(name));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(OtlpError::Secret(name));
    }
    Ok(url)
}

/// Where a collector of this address takes traces.
fn below(mut base: Url) -> Url {
    base.set_path(&format!("{}/v1/traces", base.path().trim_end_matches('/')));
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)]) -> Result<Option<String>, OtlpError> {
        let environment = variables.iter().copied().collect();
        Ok(OtlpOptions::of(&environment)?.map(|options| options.traces.to_string()))
    }

    #[test]
    fn the_address_of_a_collector_is_completed_and_that_of_traces_is_taken_as_it_is() {
        assert_eq!(chosen(&[]).unwrap(), None);
        let base = (ENDPOINT, "http://collector:4318/");
        assert_eq!(chosen(&[base]).unwrap().unwrap(), "http://collector:4318/v1/traces");
        let own = (TRACES_ENDPOINT, "https://traces.example/intake");
        assert_eq!(chosen(&[base, own]).unwrap().unwrap(), "https://traces.example/intake");
        assert_eq!(chosen(&[base, (DISABLED, "true")]).unwrap(), None);
        let flag = "http://other:1/otlp".parse().unwrap();
        let environment = [base, own].into_iter().collect();
        let environment = OtlpOptions::prefer(flag, environment).unwrap();
        let options = OtlpOptions::of(&environment).unwrap().unwrap();
        assert_eq!(options.traces.as_str(), "http://other:1/otlp/v1/traces");
    }

    #[test]
    fn an_address_that_is_none_or_holds_a_secret_is_refused_without_repeating_it() {
        for refused in
            ["collector:4318", "ftp://collector", "http://me:hunter2@collector", "http://collector/?key=hunter2"]
        {
            let error = chosen(&[(ENDPOINT, refused)]).unwrap_err().to_string();
            assert!(error.contains(ENDPOINT) && !error.contains("hunter2"), "{error}");
        }
    }
}
