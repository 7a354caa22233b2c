//! A Ferrocast with an announcer of its own: all of `ferrocast`, whose speaker also serves the AnnouncerClass `file`.
mod file;

use std::process::ExitCode;

use ferrocast::OwnAnnouncers;

fn main() -> ExitCode {
    let path = std::env::var_os("FERROCAST_FILE").unwrap_or_else(|| "announced.txt".into());
    ferrocast::main_with(OwnAnnouncers::default().with(|supervisor| file::start(supervisor, path.into())))
}
