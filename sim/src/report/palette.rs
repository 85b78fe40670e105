//! The colours of plots: those that the SVG names, and what the page's style makes of them in the dark.
//!
//! The backend writes plain colours, so the style finds them by their attribute; a plot taken out of its page is light.

use plotters::style::RGBColor;

/// A colour by its light and its dark value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ink {
    light: RGBColor,
    dark: &'static str,
}

impl Ink {
    const fn new(light: u32, dark: &'static str) -> Self {
        Self { light: RGBColor((light >> 16) as u8, (light >> 8) as u8, light as u8), dark }
    }

    /// The colour that plots are drawn with.
    pub(crate) const fn light(self) -> RGBColor {
        self.light
    }

    /// The colour as the SVG writes it: `#1F6FEB`.
    pub(crate) fn name(self) -> String {
        let RGBColor(red, green, blue) = self.light;
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

pub(crate) const TEXT: Ink = Ink::new(0x57_606A, "#9da7b3");
pub(crate) const GRID: Ink = Ink::new(0xE1_E4E8, "#30363d");

/// Lines, told apart by their dashes too.
pub(crate) const LINES: [Ink; 4] = [
    Ink::new(0x09_69DA, "#58a6ff"),
    Ink::new(0xBC_4C00, "#f0883e"),
    Ink::new(0x82_50DF, "#bc8cff"),
    Ink::new(0x1A_7F37, "#3fb950"),
];

// Strips: polls, states, and who interfered.
pub(crate) const SUCCESS: Ink = Ink::new(0x2D_A44E, "#2ea043");
pub(crate) const SILENT: Ink = Ink::new(0xCF_222E, "#f85149");
pub(crate) const UNREACHABLE: Ink = Ink::new(0xD4_640A, "#f0883e");
pub(crate) const UNTRUSTED: Ink = Ink::new(0x82_071E, "#ffaba8");
pub(crate) const OVERLOADED: Ink = Ink::new(0xBF_8700, "#e3b341");
pub(crate) const DENIED: Ink = Ink::new(0xBF_3989, "#f778ba");
pub(crate) const GARBLED: Ink = Ink::new(0x05_50AE, "#79c0ff");
pub(crate) const OPEN: Ink = Ink::new(0xFF_8182, "#b62324");
pub(crate) const HALF_OPEN: Ink = Ink::new(0xEA_C54F, "#9e6a03");
pub(crate) const DEAD: Ink = Ink::new(0x66_39BA, "#a371f7");
pub(crate) const ABSENT: Ink = Ink::new(0xAF_B8C1, "#484f58");
pub(crate) const OPERATOR: Ink = Ink::new(0x0A_3069, "#cae8ff");
pub(crate) const VIOLATION: Ink = Ink::new(0xFF_00AA, "#ff4dd2");
pub(crate) const FAULT: Ink = Ink::new(0xC6_9A6B, "#8a6d3b");

/// Every colour, for the page's style.
pub(crate) const ALL: [Ink; 20] = [
    TEXT,
    GRID,
    LINES[0],
    LINES[1],
    LINES[2],
    LINES[3],
    SUCCESS,
    SILENT,
    UNREACHABLE,
    UNTRUSTED,
    OVERLOADED,
    DENIED,
    GARBLED,
    OPEN,
    HALF_OPEN,
    DEAD,
    ABSENT,
    OPERATOR,
    VIOLATION,
    FAULT,
];

/// The rules that bring the colours into a dark page.
pub(crate) fn dark_rules() -> String {
    let rule = |ink: &Ink| {
        let (name, dark) = (ink.name(), ink.dark);
        format!("svg [fill=\"{name}\"]{{fill:{dark}}}svg [stroke=\"{name}\"]{{stroke:{dark}}}")
    };
    ALL.iter().map(rule).collect()
}

/// The rules that tell lines apart without colour.
pub(crate) fn dash_rules() -> String {
    let dashes = ["none", "7 3", "2 3", "9 3 2 3"];
    let rule = |(ink, dash): (&Ink, &str)| format!("svg [stroke=\"{}\"]{{stroke-dasharray:{dash}}}", ink.name());
    LINES.iter().zip(dashes).map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_can_be_told_from_the_others_by_its_name() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|ink| ink.name()).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
