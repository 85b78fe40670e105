//! The program `soak`: runs the daemon for long and judges what it holds on to.

/// Counts the live heap of whichever process has begun a profile; for all others it passes requests on.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> std::process::ExitCode {
    soak::main()
}
