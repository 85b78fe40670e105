//! What the process gives away beside its answers: panics, whoever catches them, and log lines.

use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// Sees every panic and every log line of the process, until it is dropped.
pub(crate) struct Watch {
    log: Log,
    panics: Arc<Mutex<Vec<String>>>,
    before: Option<Hook>,
}

impl Watch {
    /// Begins to watch. The log is taken for good, since a process can give it to one reader alone.
    pub(crate) fn begin() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Log::default();
            let lines =
                tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(log.clone());
            // Whoever else logs in this process keeps its lines; then there are none to look at.
            let _ = lines.try_init();
            log
        });
        let panics = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&panics);
        let before = Some(panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
        }));
        Self { log: log.clone(), panics, before }
    }

    /// The panics since the last time.
    pub(crate) fn panics(&self) -> Vec<String> {
        std::mem::take(&mut self.panics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log lines since the last time.
    pub(crate) fn log(&self) -> Vec<u8> {
        std::mem::take(&mut self.log.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A hook cannot be set while this thread unwinds.
        if let Some(before) = self.before.take().filter(|_| !std::thread::panicking()) {
            panic::set_hook(before);
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
