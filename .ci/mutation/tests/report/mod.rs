//! What a run needs of the simulator's reports. Nobody draws pages of mutants.

#[path = "../../../../sim/src/report/lane.rs"]
mod lane;
#[path = "../../../../sim/src/report/recorder.rs"]
mod recorder;

pub(crate) use recorder::{Recorder, Recording};
