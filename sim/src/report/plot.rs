//! Lines over time, as SVG and as a table.

use plotters::prelude::*;

use super::page::Table;
use super::palette;

/// Lines of a plot, at the most: as many as can be told apart.
const MAX_SERIES: usize = palette::LINES.len();
/// Points of a line, at the most; more are thinned to the highest of their neighbourhood.
const MAX_POINTS: usize = 480;
/// Rows of a table, at the most.
const MAX_ROWS: usize = 60;
/// Sizes of the two drawings: for a screen, and for a phone held upright.
const WIDE: (u32, u32) = (960, 260);
const NARROW: (u32, u32) = (400, 260);

/// Lines over time.
///
/// ```
/// use sim::report::{Plot, Series};
/// let heap = Series::new("heap", (0..120).map(|second| (f64::from(second), 3.2)));
/// let plot = Plot::new("Heap", "MiB", [heap]);
/// assert!(plot.svg(640, 240).starts_with("<svg"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    title: String,
    unit: String,
    note: String,
    series: Vec<Series>,
}

/// One line: points in the order of their time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// A line through `points`: seconds since the beginning, and the value then. What is not finite is left out.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { name: name.into(), points }
    }

    /// What the line stands for.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn last_time(&self) -> f64 {
        self.points.last().map_or(0.0, |(x, _)| *x)
    }

    fn highest(&self) -> Option<(f64, f64)> {
        highest(&self.points)
    }

    fn highest_between(&self, from: f64, to: f64) -> Option<f64> {
        let first = self.points.partition_point(|(x, _)| *x < from);
        let end = self.points.partition_point(|(x, _)| *x <= to);
        highest(self.points.get(first..end)?).map(|(_, y)| y)
    }

    /// The highest point of each of at most `most` stretches, so that no peak is lost.
    fn thinned(&self, most: usize) -> Vec<(f64, f64)> {
        let stretch = self.points.len().div_ceil(most).max(1);
        self.points.chunks(stretch).filter_map(highest).collect()
    }
}

/// The highest point, and of equal ones the first.
fn highest(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    points.iter().copied().reduce(|best, point| if point.1 > best.1 { point } else { best })
}

impl Plot {
    /// A plot of at most four lines; `unit` is what is written beside the values.
    pub fn new(title: impl Into<String>, unit: impl Into<String>, series: impl IntoIterator<Item = Series>) -> Self {
        let series = series.into_iter().take(MAX_SERIES).collect();
        Self { title: title.into(), unit: unit.into(), note: String::new(), series }
    }

    /// The plot with a sentence beneath its title: what is counted, and what is not.
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// What the plot shows.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The sentence beneath the title; may be empty.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The drawing, `width` by `height` pixels, light; the page brings it into the dark.
    pub fn svg(&self, width: u32, height: u32) -> String {
        let mut svg = String::new();
        // The backend writes into memory, so drawing fails for an empty area alone; then there is nothing to see.
        if self.draw(&mut svg, (width.max(120), height.max(80))).is_err() {
            svg.clear();
        }
        svg
    }

    /// The drawing for a screen.
    pub(crate) fn wide(&self) -> String {
        self.svg(WIDE.0, WIDE.1)
    }

    /// The drawing for a phone.
    pub(crate) fn narrow(&self) -> String {
        self.svg(NARROW.0, NARROW.1)
    }

    /// Each line's colour and name, with its mean and its peak in words.
    pub(crate) fn legend(&self) -> Vec<(String, String)> {
        let scale = self.scale();
        let words = |series: &Series| match series.highest() {
            None => format!("{}: no figures", series.name),
            Some((at, peak)) => {
                let mean = series.points.iter().map(|(_, y)| y).sum::<f64>() / series.points.len() as f64;
                let (mean, peak, unit) = (number(mean), number(peak), self.unit.as_str());
                format!("{}: mean {mean} {unit}, peak {peak} {unit} at {}", series.name, scale.words(at))
            }
        };
        let colours = palette::LINES.iter().map(|ink| ink.name());
        colours.zip(self.series.iter().map(words)).collect()
    }

    /// The plotted figures; of more than can be read, the highest of each stretch of time.
    pub(crate) fn table(&self) -> Table {
        let scale = self.scale();
        let named = self.series.iter().map(|series| format!("{}, {}", series.name, self.unit));
        let headings = std::iter::once(scale.unit.to_owned()).chain(named).collect();
        let mut times: Vec<f64> = self.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)).collect();
        times.sort_unstable_by(f64::total_cmp);
        times.dedup();
        let row = |stretch: &[f64]| {
            let (from, to) = (stretch[0], stretch[stretch.len() - 1]);
            let values =
                self.series.iter().map(|series| series.highest_between(from, to).map_or(String::new(), number));
            std::iter::once(number(scale.of(from))).chain(values).collect()
        };
        let rows = times.chunks(times.len().div_ceil(MAX_ROWS).max(1)).map(row).collect();
        Table { headings, rows }
    }

    fn scale(&self) -> TimeScale {
        TimeScale::for_span(self.series.iter().map(Series::last_time).fold(0.0, f64::max))
    }

    fn draw(&self, svg: &mut String, size: (u32, u32)) -> Result<(), Box<dyn std::error::Error + '_>> {
        let scale = self.scale();
        let end = self.series.iter().map(Series::last_time).fold(0.0, f64::max);
        let top = self.series.iter().filter_map(Series::highest).map(|(_, y)| y).fold(0.0, f64::max);
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(6)
            .margin_right(18)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..scale.of(end).max(f64::EPSILON), 0.0..if top > 0.0 { top * 1.08 } else { 1.0 })?;
        let ink = palette::TEXT.light();
        let columns = usize::try_from(size.0 / 90).unwrap_or(8).clamp(3, 10);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(palette::GRID.light())
            .axis_style(palette::GRID.light())
            .label_style(("sans-serif", 16).into_font().color(&ink))
            .x_labels(columns)
            .y_labels(5)
            .x_desc(scale.unit)
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number(*y))
            .draw()?;
        for (series, ink) in self.series.iter().zip(palette::LINES) {
            let points = series.thinned(MAX_POINTS).into_iter().map(|(x, y)| (scale.of(x), y));
            chart.draw_series(LineSeries::new(points, ink.light().stroke_width(2)))?;
        }
        area.present()?;
        drop(chart);
        drop(area);
        Ok(())
    }
}

/// The unit in which a span of time has round figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeScale {
    unit: &'static str,
    secs: f64,
}

impl TimeScale {
    pub(super) fn for_span(secs: f64) -> Self {
        match secs {
            secs if secs <= 300.0 => Self { unit: "seconds", secs: 1.0 },
            secs if secs <= 3.0 * 3_600.0 => Self { unit: "minutes", secs: 60.0 },
            secs if secs <= 72.0 * 3_600.0 => Self { unit: "hours", secs: 3_600.0 },
            _ => Self { unit: "days", secs: 86_400.0 },
        }
    }

    fn of(self, secs: f64) -> f64 {
        secs / self.secs
    }

    pub(super) fn words(self, secs: f64) -> String {
        format!("{} {}", number(self.of(secs)), self.unit)
    }
}

/// A number as somebody would write it: three figures that count, thousands as `k` and millions as `M`.
pub(crate) fn number(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text.as_str() };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, points: &[(f64, f64)]) -> Series {
        Series::new(name, points.iter().copied())
    }

    #[test]
    fn a_number_is_short_and_keeps_what_counts() {
        let shown = [0.0, 0.0312, 0.5, 3.0, 12.34, 812.6, 9_999.0, 12_340.0, 2_500_000.0].map(number);
        assert_eq!(shown, ["0", "0.0312", "0.5", "3", "12.3", "813", "9999", "12.3k", "2.5M"]);
    }

    #[test]
    fn thinning_keeps_every_peak_that_is_the_highest_around() {
        let series = Series::new("a", (0..10_000).map(|n| (f64::from(n), if n == 4_321 { 99.0 } else { 1.0 })));
        let thinned = series.thinned(MAX_POINTS);
        assert!(thinned.len() <= MAX_POINTS);
        assert!(thinned.contains(&(4_321.0, 99.0)));
    }

    #[test]
    fn text_from_outside_is_escaped_in_the_drawing() {
        let plot = Plot::new("t", "<script>", [line("<b>", &[(0.0, 1.0), (5.0, 2.0)])]);
        assert!(!plot.svg(400, 200).contains("<script>"));
        assert!(!plot.svg(400, 200).contains("<b>"));
    }

    #[test]
    fn a_plot_without_figures_and_one_with_odd_figures_can_be_drawn() {
        for points in [&[][..], &[(0.0, 0.0)], &[(0.0, f64::NAN), (1.0, f64::INFINITY)], &[(0.0, -3.0), (9.0, 1e300)]] {
            let plot = Plot::new("t", "hosts", [line("a", points)]);
            assert!(plot.svg(400, 200).ends_with("</svg>\n"), "{points:?}");
            assert_eq!(plot.legend().len(), 1);
            let _ = plot.table();
        }
    }

    #[test]
    fn a_row_of_the_table_holds_what_every_line_had_at_that_time() {
        let plot = Plot::new("t", "s", [line("a", &[(0.0, 1.0), (2.0, 5.0)]), line("b", &[(1.0, 9.0), (2.0, 3.0)])]);
        assert_eq!(plot.table().rows, [["0", "1", ""], ["1", "", "9"], ["2", "5", "3"]]);
    }

    #[test]
    fn the_table_has_a_column_for_each_line_and_few_rows() {
        let long = |name| Series::new(name, (0..5_000).map(|n| (f64::from(n) * 60.0, f64::from(n))));
        let table = Plot::new("t", "hosts", [long("a"), long("b")]).table();
        assert_eq!(table.headings, ["days", "a, hosts", "b, hosts"]);
        assert!(table.rows.len() <= MAX_ROWS && table.rows.iter().all(|row| row.len() == 3));
    }
}
