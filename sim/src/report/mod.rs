//! Reports: one HTML file that holds everything it shows, for a run, for a farm, and for whoever measures over time.
//!
//! [`Page`] and [`Plot`] know nothing of the simulator; [`run_page`] is made of them. A page loads nothing from anywhere.

mod lane;
mod page;
mod palette;
mod plot;
mod recorder;
mod run;
mod timeline;

pub use page::{Block, Figure, Page, Section, Table, Tone};
pub use plot::{Plot, Series};
pub(crate) use recorder::Recorder;
pub use recorder::Recording;
pub use run::run_page;
pub use timeline::Timeline;
