//! How large the measured fleets are.

/// Fleets of a farm to those of a country; only the small ones where nothing is measured, as `cargo test --bench` does.
pub(crate) fn sizes(most: usize) -> impl Iterator<Item = usize> {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let most = if measured { most } else { 1_000 };
    [12, 80, 1_000, 10_000, 100_000, 1_000_000].into_iter().filter(move |size| *size <= most)
}
