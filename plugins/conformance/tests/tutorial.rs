//! The tutorial of the book, executed word by word: its files are written, its commands are run in one shell, and what they print is
//! compared with the page. How the page is read, `tutorial/page.rs` says.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "commands are real and take their time; a test may fail where it stands"
)]
#[path = "tutorial/page.rs"]
mod page;
#[path = "tutorial/shell.rs"]
mod shell;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use page::{What, blocks, is_output};
use shell::Shell;

const PAGE: &str = include_str!("../../../book/src/plugins/first-plugin.md");
/// The reader's crate.
const CRATE: &str = "ferrocast-tinc";
/// The packages that are built from the reader's folder, which is another one in each run: what was built of them is of no use to
/// the next.
const LOCAL_PACKAGES: &[&str] = &[CRATE, "ferrocast-core", "ferrocast-plugin-proto", "ferrocast-plugin-sdk"];
/// Variables by which cargo and rustc of this test's own build would reach into the reader's: all that begin so, but for these.
const FOREIGN: &[&str] = &["CARGO", "RUST_"];
const KEPT: &[&str] = &["CARGO_HOME"];

/// The reader's folder: the checkout in it, with the binaries that the tutorial has built once.
struct Desk {
    folder: tempfile::TempDir,
    /// Kept between runs for the dependencies, which take a minute or two.
    target: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ferrocast-tutorial-").tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let checkout = folder.path().join("ferrocast");
        let built = checkout.join("target/debug");
        fs::create_dir_all(&built).unwrap();
        for entry in fs::read_dir(root).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "target") {
            symlink(entry.path(), checkout.join(entry.file_name())).unwrap();
        }
        let conformance = Path::new(env!("CARGO_BIN_EXE_ferrocast-conformance"));
        symlink(conformance, built.join("ferrocast-conformance")).unwrap();
        // No test of this package builds it; a build of the workspace does.
        let ferrocast = conformance.with_file_name("ferrocast");
        assert!(ferrocast.exists() || std::env::var_os("CI").is_none(), "in CI the whole workspace is built before");
        if ferrocast.exists() {
            symlink(ferrocast, built.join("ferrocast")).unwrap();
        }
        Self { folder, target: Path::new(env!("CARGO_TARGET_TMPDIR")).join("tutorial") }
    }

    fn has(&self, binary: &str) -> bool {
        self.folder.path().join("ferrocast/target/debug").join(binary).exists()
    }

    fn shell(&self) -> Shell {
        let foreign =
            |name: &String| FOREIGN.iter().any(|begin| name.starts_with(begin)) && !KEPT.contains(&name.as_str());
        let without: Vec<String> =
            std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(foreign).collect();
        let variables = [
            ("CARGO_TARGET_DIR", self.target.as_path()),
            // The crates are there: they are the workspace's own.
            ("CARGO_NET_OFFLINE", Path::new("true")),
            ("CARGO_PROFILE_DEV_DEBUG", Path::new("0")),
            ("CARGO_INCREMENTAL", Path::new("0")),
            ("CARGO_TERM_COLOR", Path::new("never")),
        ];
        Shell::start(self.folder.path(), &variables, &without).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut clean = Command::new("cargo");
        clean.args(["clean", "--quiet", "--offline"]).env("CARGO_TARGET_DIR", &self.target);
        for package in LOCAL_PACKAGES {
            clean.args(["--package", package]);
        }
        println!("cleaning up: {:?}", clean.current_dir(self.folder.path().join(CRATE)).status());
    }
}

/// What `cargo build -p NAME …` in the checkout leaves behind is there. No package but the binary `ferrocast` may be missing: see [`Desk::new`].
fn check_built(desk: &Desk, command: &str) {
    let build = command.strip_prefix("(cd ferrocast && cargo build ").and_then(|rest| rest.strip_suffix(')'));
    let words: Vec<&str> = build.unwrap_or_default().split_whitespace().collect();
    assert!(!words.is_empty() && words.len().is_multiple_of(2), "{command:?} does not build packages of the checkout");
    for pair in words.chunks(2) {
        let (option, package) = (pair[0], pair[1]);
        assert_eq!(option, "-p", "{command:?}");
        assert!(package == "ferrocast" || desk.has(package), "{command:?} does not leave {package} in target/debug");
    }
}

fn run(desk: &Desk, shell: &mut Shell, command: &page::Command) {
    let page::Command { line, text, output } = command;
    if text.starts_with("ferrocast ") && !desk.has("ferrocast") {
        println!("line {line}: skipped: the binary ferrocast is not built: $ {text}");
        return;
    }
    let (seen, took) = shell.run(text).unwrap();
    println!("line {line}: {took:.1?}: $ {text}");
    let (expected, printed) = (output.join("\n"), seen.join("\n"));
    assert!(
        is_output(output, &seen),
        "line {line} of the page: $ {text}\n--- does not print what the page says:\n{expected}\n--- but:\n{printed}\n---"
    );
}

#[test]
fn tutorial_does_what_it_says_when_it_is_followed_word_by_word() {
    let desk = Desk::new();
    // Ends before the folder does.
    let mut shell = desk.shell();
    for block in blocks(PAGE).unwrap_or_else(|error| panic!("{error}")) {
        match block.what {
            What::Cluster => println!("line {}: not executed: needs a cluster", block.line),
            What::Once(commands) => commands.iter().for_each(|command| check_built(&desk, &command.text)),
            What::Run(commands) => commands.iter().for_each(|command| run(&desk, &mut shell, command)),
            What::File { name, text } => {
                let path = desk.folder.path().join(CRATE).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
    }
}
