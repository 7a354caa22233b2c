//! A plugin for the end-to-end tests: the announcer of the example `custom`, outside of the speaker's process.
#[path = "../../../plugins/examples/custom/src/file.rs"]
mod file;

use std::process::ExitCode;

fn main() -> ExitCode {
    let path = std::env::var_os("FERROCAST_FILE").unwrap_or_else(|| "announced.txt".into());
    ferrocast_plugin_sdk::run(|supervisor| file::start(supervisor, path.into()))
}
