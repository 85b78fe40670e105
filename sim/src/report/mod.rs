//! Reports: one HTML file that holds everything it shows, for a run, for a farm, and for whoever measures over time.
//!
//! [`Page`] and [`Plot`] are the building blocks and know nothing of the simulator. A page loads nothing from anywhere.

mod page;
mod palette;
mod plot;

pub use page::{Block, Figure, Page, Section, Table, Tone};
pub use plot::{Plot, Series};
