//! Hosts one beneath the other over time: what each was and did, as a strip and in words.

use plotters::prelude::*;

use super::palette::Ink;
use super::plot::TimeScale;

/// Size of a strip's drawing; the page stretches it to its own width.
const STRIP: (u32, u32) = (960, 34);

/// Strips over one axis of time.
#[derive(Clone, Debug)]
pub struct Timeline {
    pub(super) secs: f64,
    pub(super) legend: Vec<(Ink, &'static str)>,
    pub(super) strips: Vec<Strip>,
}

/// One strip.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    pub(super) name: String,
    pub(super) summary: String,
    pub(super) bands: Vec<Band>,
    pub(super) moments: Vec<String>,
}

/// A stretch of time in one colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Band {
    /// Parts of the whole time, 0 to 1.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) height: Height,
    pub(super) ink: Ink,
}

/// Where in a strip a band is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Height {
    /// The line on top: states that last.
    Top,
    /// Beneath it: somebody did something.
    Tick,
    /// The lower half: polls that succeeded.
    Low,
    /// Below both: polls that failed.
    Tall,
    /// All of it, and never too narrow to be seen.
    Whole,
}

impl Timeline {
    /// The axis: figures at even distances, and their unit at the end.
    pub(super) fn axis(&self) -> Vec<String> {
        let scale = TimeScale::for_span(self.secs);
        (0..=4).map(|quarter| scale.words(self.secs * f64::from(quarter) / 4.0)).collect()
    }

    pub(super) fn legend(&self) -> Vec<(String, &'static str)> {
        self.legend.iter().map(|(ink, words)| (ink.name(), *words)).collect()
    }

    pub(super) fn strips(&self) -> &[Strip] {
        &self.strips
    }
}

impl Strip {
    pub(super) fn svg(&self) -> String {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, STRIP).into_drawing_area();
            for band in &self.bands {
                // Drawing into memory does not fail.
                let _ = area.draw(&band.rectangle());
            }
            let _ = area.present();
        }
        svg.replacen("<svg ", "<svg preserveAspectRatio=\"none\" ", 1)
    }
}

impl Band {
    fn rectangle(&self) -> Rectangle<(i32, i32)> {
        let (top, bottom, least) = match self.height {
            Height::Top => (0, 7, 1),
            Height::Tick => (8, 13, 2),
            Height::Low => (24, 34, 1),
            Height::Tall => (14, 34, 2),
            Height::Whole => (0, 34, 3),
        };
        let place = |part: f64| (part.clamp(0.0, 1.0) * f64::from(STRIP.0)).round() as i32;
        let (left, right) = (place(self.from), place(self.to));
        Rectangle::new([(left, top), (right.max(left + least), bottom)], self.ink.light().filled())
    }
}
