//! Which allocation sites grew between the end of the warm-up and the end, out of one profile of dhat.
//!
//! A profile tells what each site held at the heap's peak and at the end. The judged process makes a peak on purpose when
//! the warm-up is over, so the difference of the two is the growth since then, exact to the byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Functions of these say nothing of who asked for the memory.
const PLUMBING: [&str; 7] = ["alloc::", "core::", "std::", "dhat::", "hashbrown::", "__rustc::", "__rust"];
/// Nor do functions in these files: an inlined function has no more than its own name.
const PLUMBING_FILES: [&str; 9] = [
    "(alloc/src/",
    "(core/src/",
    "(std/src/",
    "(dhat-",
    "(src/raw_vec/",
    "(src/vec/",
    "(src/fmt/",
    "(src/slice.rs",
    "(src/collections/",
];
/// Crates of this project.
const OURS: [&str; 3] = ["pulse::", "soak::", "sim::"];
/// Frames shown of a site.
const SHOWN_FRAMES: usize = 6;

/// A site that holds more than it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrownSite {
    /// The innermost function of this project, or of a library if there is none.
    pub site: String,
    /// Bytes more than at the end of the warm-up.
    pub bytes: i64,
    /// Blocks more than at the end of the warm-up.
    pub blocks: i64,
    /// Bytes held at the end.
    pub held_bytes: u64,
    /// The way to it, innermost first, of its largest part.
    pub frames: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(rename = "pps")]
    points: Vec<Point>,
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(rename = "gb")]
    bytes_at_peak: i64,
    #[serde(rename = "gbk")]
    blocks_at_peak: i64,
    #[serde(rename = "eb")]
    bytes_at_end: i64,
    #[serde(rename = "ebk")]
    blocks_at_end: i64,
    #[serde(rename = "fs")]
    frames: Vec<usize>,
}

/// The sites of a dhat profile that grew, the largest growth first.
///
/// # Errors
/// The text is no profile of a heap.
pub fn grown_sites(profile: &str) -> Result<Vec<GrownSite>, serde_json::Error> {
    let profile: Profile = serde_json::from_str(profile)?;
    let mut sites: BTreeMap<String, (GrownSite, i64)> = BTreeMap::new();
    for point in &profile.points {
        let frames: Vec<&str> =
            point.frames.iter().filter_map(|frame| profile.frames.get(*frame)).map(|frame| function(frame)).collect();
        let name = site(&frames).to_owned();
        let bytes = point.bytes_at_end - point.bytes_at_peak;
        let empty = GrownSite { site: name.clone(), bytes: 0, blocks: 0, held_bytes: 0, frames: Vec::new() };
        let (site, largest) = sites.entry(name).or_insert((empty, i64::MIN));
        site.bytes += bytes;
        site.blocks += point.blocks_at_end - point.blocks_at_peak;
        site.held_bytes += u64::try_from(point.bytes_at_end).unwrap_or_default();
        if bytes > *largest {
            *largest = bytes;
            site.frames = shown(&frames);
        }
    }
    let mut grown: Vec<GrownSite> = sites.into_values().map(|(site, _)| site).filter(|site| site.bytes > 0).collect();
    grown.sort_by_key(|site| std::cmp::Reverse(site.bytes));
    Ok(grown)
}

/// `0x55…: pulse::fleet::Fleet::new (src/fleet/mod.rs:12:5)` without its address.
fn function(frame: &str) -> &str {
    frame.split_once(": ").map_or(frame, |(_, function)| function)
}

fn is_plumbing(frame: &str) -> bool {
    let path = frame.trim_start_matches(['<', '&']);
    PLUMBING.iter().any(|prefix| path.starts_with(prefix)) || PLUMBING_FILES.iter().any(|file| frame.contains(file))
}

fn is_ours(frame: &str) -> bool {
    let path = frame.trim_start_matches(['<', '&']);
    OURS.iter().any(|prefix| path.starts_with(prefix))
}

fn site<'a>(frames: &[&'a str]) -> &'a str {
    let ours = frames.iter().find(|frame| is_ours(frame));
    let theirs = || frames.iter().find(|frame| !is_plumbing(frame) && !frame.starts_with('['));
    ours.or_else(theirs).or(frames.first()).copied().unwrap_or("(unknown)")
}

fn shown(frames: &[&str]) -> Vec<String> {
    frames.iter().filter(|frame| !is_plumbing(frame)).take(SHOWN_FRAMES).map(|frame| (*frame).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_summed_by_the_innermost_function_of_this_project() {
        let profile = r#"{"pps": [
            {"gb": 100, "gbk": 1, "eb": 400, "ebk": 4, "fs": [1, 3, 4]},
            {"gb": 0, "gbk": 0, "eb": 50, "ebk": 1, "fs": [1, 2, 3]},
            {"gb": 900, "gbk": 9, "eb": 100, "ebk": 1, "fs": [1, 5]}],
            "ftbl": ["[root]", "0x1: alloc::vec::grow (a.rs:1:1)", "0x2: hyper::write (b.rs:1:1)",
                "0x3: pulse::fleet::keep (c.rs:1:1)", "0x4: tokio::poll (d.rs:1:1)", "0x5: soak::shrinks (e.rs:1:1)"]}"#;
        let grown = grown_sites(profile).unwrap();
        assert_eq!(grown.len(), 1);
        assert_eq!(grown[0].site, "pulse::fleet::keep (c.rs:1:1)");
        assert_eq!((grown[0].bytes, grown[0].blocks, grown[0].held_bytes), (350, 4, 450));
        assert_eq!(grown[0].frames, ["pulse::fleet::keep (c.rs:1:1)", "tokio::poll (d.rs:1:1)"]);
    }
}
