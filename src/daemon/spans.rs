//! The export of spans where the program was built with it (feature `otel`), and nothing at all where it was not.

#[cfg(not(feature = "otel"))]
pub(super) use absent::SpanExport;
#[cfg(feature = "otel")]
pub(super) use present::SpanExport;

#[cfg(feature = "otel")]
mod present {
    use std::sync::Arc;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use prometheus_client::registry::Registry;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use crate::config::Environment;
    use crate::daemon::StartError;
    use crate::fleet::{Fleet, Overheard};
    use crate::runtime::{Driver, TokioClock};
    use crate::telemetry::{OtlpOptions, Spans, trace_call};

    /// Exports spans, if the environment names a collector.
    pub(in crate::daemon) struct SpanExport(Option<(Spans, Overheard)>);

    impl SpanExport {
        pub(in crate::daemon) fn begin(
            environment: &Environment,
            clock: &Arc<TokioClock>,
            tasks: (&TaskTracker, &CancellationToken),
        ) -> Result<Self, StartError> {
            let Some(options) = OtlpOptions::of(environment)? else { return Ok(Self(None)) };
            let spans = Spans::start(&options, clock.clone(), tasks)?;
            Ok(Self(Some((spans, Overheard::default()))))
        }

        pub(in crate::daemon) fn overhear(&self, fleet: Fleet) -> Fleet {
            match &self.0 {
                Some((_, overheard)) => fleet.overheard_by(overheard.clone()),
                None => fleet,
            }
        }

        pub(in crate::daemon) fn listen(&self, driver: Driver<TokioClock, Fleet>) -> Driver<TokioClock, Fleet> {
            match &self.0 {
                Some((spans, overheard)) => driver.subscribe(spans.of_polls(overheard.clone())),
                None => driver,
            }
        }

        pub(in crate::daemon) fn register(&self, registry: &mut Registry) {
            if let Some((spans, _)) = &self.0 {
                spans.register(registry);
            }
        }

        pub(in crate::daemon) fn of_calls(self, router: Router) -> Router {
            match self.0 {
                Some((spans, _)) => router.layer(from_fn_with_state(spans, trace_call)),
                None => router,
            }
        }
    }
}

#[cfg(not(feature = "otel"))]
mod absent {
    use std::sync::Arc;

    use axum::Router;
    use prometheus_client::registry::Registry;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use crate::config::Environment;
    use crate::daemon::StartError;
    use crate::fleet::Fleet;
    use crate::runtime::{Driver, TokioClock};

    /// Exports nothing.
    pub(in crate::daemon) struct SpanExport;

    impl SpanExport {
        pub(in crate::daemon) fn begin(
            _: &Environment,
            _: &Arc<TokioClock>,
            _: (&TaskTracker, &CancellationToken),
        ) -> Result<Self, StartError> {
            Ok(Self)
        }

        pub(in crate::daemon) fn overhear(&self, fleet: Fleet) -> Fleet {
            fleet
        }

        pub(in crate::daemon) fn listen(&self, driver: Driver<TokioClock, Fleet>) -> Driver<TokioClock, Fleet> {
            driver
        }

        pub(in crate::daemon) fn register(&self, _: &mut Registry) {}

        pub(in crate::daemon) fn of_calls(self, router: Router) -> Router {
            router
        }
    }
}
