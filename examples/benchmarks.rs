//! Writes the measured part of `docs/benchmarks.md`, and its plots, from what `cargo bench` left in `target/criterion`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plotters::prelude::*;
use serde_json::Value;

const PAGE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- measured: begin; made by `cargo run --release --example benchmarks` -->\n";
const END: &str = "<!-- measured: end -->\n";
/// What a scheduler of this kind in Go was measured to need on a machine of this kind, in nanoseconds a cycle.
const GO: [(usize, f64); 2] = [(80, 756.0), (100_000, 3_755.0)];
/// What a cycle may take, in nanoseconds.
const BARS: [(usize, f64); 3] = [(80, 100.0), (100_000, 300.0), (1_000_000, 600.0)];

/// Nanoseconds for each element by the number of instances.
type Series = BTreeMap<usize, f64>;

fn main() -> Result<(), Box<dyn Error>> {
    let measured = |group: &str| series(Path::new("target/criterion").join(group).as_path());
    let (cycle, naive) = (measured("engine cycle")?, measured("naive cycle")?);
    let groups = [
        ("Plan of a whole fleet, an instance", measured("plan of a fleet")?),
        ("Everything of the engine's health, an instance", measured("health of a fleet")?),
        ("Health answer of the router, an instance", measured("health answer")?),
        ("Router call", measured("router call")?),
        ("Metrics and log told of one poll", measured("event fan-out")?),
    ];
    let simulator = measured("simulator")?;

    let mut text = format!("Measured on {}.\n\n", machine());
    text += &ratios(&cycle, &naive);
    text += "\n![A cycle by fleet size](benchmarks/cycle.svg)\n\n";
    text += &table(&[("A cycle of the engine", cycle.clone()), ("Naive", naive.clone())]);
    text += "\n";
    text += &table(&groups);
    if let Some((_, nanos)) = simulator.first_key_value() {
        writeln!(text, "\nThe simulator: {:.1} million events a second on one core.", 1e3 / nanos)?;
    }
    fs::create_dir_all("docs/benchmarks")?;
    plot("docs/benchmarks/cycle.svg", &[("engine", &cycle), ("naive", &naive)])?;
    let page = fs::read_to_string(PAGE)?;
    let (head, rest) = page.split_once(BEGIN).ok_or("the page has no place for what was measured")?;
    let (_, tail) = rest.split_once(END).ok_or("the place for what was measured has no end")?;
    fs::write(PAGE, format!("{head}{BEGIN}{text}{END}{tail}"))?;
    Ok(())
}

/// The medians of one group.
fn series(group: &Path) -> Result<Series, Box<dyn Error>> {
    let mut series = Series::new();
    for entry in fs::read_dir(group).map_err(|error| format!("{}: {error}; run cargo bench first", group.display()))? {
        let folder = entry?.path();
        let Some(size) = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let read = |name: &str| -> Result<Value, Box<dyn Error>> {
            Ok(serde_json::from_str(&fs::read_to_string(folder.join("new").join(name))?)?)
        };
        let median = read("estimates.json")?["median"]["point_estimate"].as_f64().ok_or("no median")?;
        let elements = read("benchmark.json")?["throughput"]["Elements"].as_f64().unwrap_or(1.0);
        series.insert(size, median / elements);
    }
    Ok(series)
}

/// How the engine stands against others and against its bars.
fn ratios(cycle: &Series, naive: &Series) -> String {
    let find = |list: &[(usize, f64)], size: usize| list.iter().find(|(of, _)| *of == size).map(|(_, nanos)| *nanos);
    let mut text = "| instances | naive ÷ engine | Go ÷ engine | share of the bar | growth from 80 |\n".to_owned();
    text += "| --- | --- | --- | --- | --- |\n";
    for (size, nanos) in cycle {
        let show = |value: Option<f64>, unit: &str| value.map_or("–".to_owned(), |value| format!("{value:.1}{unit}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            grouped(*size),
            show(naive.get(size).map(|naive| naive / nanos), " ×"),
            show(find(&GO, *size).map(|go| go / nanos), " ×"),
            show(find(&BARS, *size).map(|bar| nanos / bar * 100.0), " %"),
            show(cycle.get(&80).map(|at_80| nanos / at_80), " ×"),
        );
    }
    text
}

fn table(groups: &[(&str, Series)]) -> String {
    let mut sizes: Vec<usize> = groups.iter().flat_map(|(_, series)| series.keys().copied()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut text = "| |".to_owned();
    sizes.iter().for_each(|size| text += &format!(" {} |", grouped(*size)));
    text += &format!("\n|{}\n", " --- |".repeat(sizes.len() + 1));
    for (name, series) in groups {
        text += &format!("| {name} |");
        let cell = |size| series.get(size).map_or("–".to_owned(), |nanos| span(*nanos));
        sizes.iter().for_each(|size| text += &format!(" {} |", cell(size)));
        text += "\n";
    }
    text
}

fn span(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 10_000.0 => format!("{nanos:.0} ns"),
        nanos if nanos < 10_000_000.0 => format!("{:.0} µs", nanos / 1e3),
        nanos => format!("{:.0} ms", nanos / 1e6),
    }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|part| str::from_utf8(part).ok()).collect();
    groups.join(",")
}

/// Processor, cores, kernel and compiler.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (cpu, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let rustc = std::process::Command::new("rustc").arg("--version").output().map(|it| it.stdout).unwrap_or_default();
    let rustc = String::from_utf8_lossy(&rustc).trim().to_owned();
    format!("{} ({cores} cores), Linux {}, {rustc}", model.unwrap_or("an unknown processor"), kernel.trim())
}

fn plot(path: &str, lines: &[(&str, &Series)]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (760, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let highest = lines.iter().flat_map(|(_, series)| series.values()).copied().fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((10.0..1_500_000.0).log_scale(), (50.0..highest * 1.3).log_scale())?;
    chart.configure_mesh().x_desc("instances").y_desc("nanoseconds a cycle").draw()?;
    for ((name, series), color) in lines.iter().zip([RGBColor(20, 90, 180), RGBColor(190, 90, 20)]) {
        let points = || series.iter().map(|(size, nanos)| (*size as f64, *nanos));
        chart.draw_series(LineSeries::new(points(), color.stroke_width(2)))?;
        chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        if let Some((x, y)) = points().next_back() {
            let style = ("sans-serif", 14).into_font().color(&color);
            chart.draw_series(std::iter::once(Text::new((*name).to_owned(), (x / 2.2, y * 1.08), style)))?;
        }
    }
    root.present()?;
    Ok(())
}
