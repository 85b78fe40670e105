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

/// Every colour, for the page's style.
pub(crate) const ALL: [Ink; 6] = [TEXT, GRID, LINES[0], LINES[1], LINES[2], LINES[3]];

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
