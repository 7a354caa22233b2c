//! The page as the test reads it: its fenced blocks, in order.
use std::{error::Error, fmt};

/// Stands for any number of lines of an output.
const LEFT_OUT: &str = "...";

/// A fenced block, and the line of the page that it begins in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) what: What,
}

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The reader writes this file: its name is the line above the block, between backquotes and with a colon.
    File { name: String, text: String },
    /// `console`: the reader runs these.
    Run(Vec<Command>),
    /// `console,once`: the reader has run these; what they build is there.
    Once(Vec<Command>),
    /// `console,cluster`: not executed.
    Cluster,
}

/// A command, and what it prints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) output: Vec<String>,
}

/// Why the page cannot be executed.
#[derive(Debug)]
pub(crate) struct PageError {
    line: usize,
    why: String,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the page: {}", self.line, self.why)
    }
}

impl Error for PageError {}

/// The blocks of a page.
pub(crate) fn blocks(page: &str) -> Result<Vec<Block>, PageError> {
    let mut lines = (1..).zip(page.lines());
    let (mut found, mut above) = (vec![], "");
    while let Some((line, text)) = lines.next() {
        let Some(info) = text.trim_start().strip_prefix("```") else {
            if !text.trim().is_empty() {
                above = text;
            }
            continue;
        };
        let mut inside = vec![];
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some(numbered) => inside.push(numbered),
                None => return Err(PageError { line, why: "the block does not end".into() }),
            }
        }
        found.push(Block { line, what: what(line, info, above, &inside)? });
        above = "";
    }
    Ok(found)
}

fn what(line: usize, info: &str, above: &str, inside: &[(usize, &str)]) -> Result<What, PageError> {
    match info {
        "console" => Ok(What::Run(commands(inside)?)),
        "console,once" => Ok(What::Once(commands(inside)?)),
        "console,cluster" => Ok(What::Cluster),
        "rust,ignore" | "toml" | "sh" | "yaml" => {
            let name = above.strip_prefix('`').and_then(|rest| rest.strip_suffix("`:")).unwrap_or_default();
            let inner = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !inner || name.contains(['`', ' ']) {
                let why = format!("a file needs its name above it, as `NAME`: in a line of its own, not {above:?}");
                return Err(PageError { line, why });
            }
            let text = inside.iter().flat_map(|(_, text)| [*text, "\n"]).collect();
            Ok(What::File { name: name.to_owned(), text })
        }
        _ => Err(PageError { line, why: format!("nobody knows what to do with a block {info:?}") }),
    }
}

/// `$ ` begins a command, `> ` goes on with one whose line ends in a backslash; what follows is its output.
fn commands(inside: &[(usize, &str)]) -> Result<Vec<Command>, PageError> {
    let mut found: Vec<Command> = vec![];
    let mut open = false;
    for &(line, text) in inside {
        if open {
            let why = || PageError { line, why: format!("the command goes on with \"> \", not with {text:?}") };
            let (rest, last) = (text.strip_prefix("> ").ok_or_else(why)?, found.last_mut());
            if let Some(command) = last {
                command.text.push('\n');
                command.text.push_str(rest);
            }
        } else if let Some(first) = text.strip_prefix("$ ") {
            found.push(Command { line, text: first.to_owned(), output: vec![] });
        } else if let Some(command) = found.last_mut() {
            command.output.push(text.to_owned());
            continue;
        } else {
            return Err(PageError { line, why: format!("a console begins with a command, not with {text:?}") });
        }
        open = text.ends_with('\\');
    }
    Ok(found)
}

/// Whether this is what the page says: line by line, but for lines that are left out.
pub(crate) fn is_output(expected: &[String], seen: &[String]) -> bool {
    match expected.split_first() {
        None => seen.is_empty(),
        Some((first, rest)) if first == LEFT_OUT => (0..=seen.len()).any(|skipped| is_output(rest, &seen[skipped..])),
        Some((first, rest)) => seen.first() == Some(first) && is_output(rest, &seen[1..]),
    }
}

#[test]
fn output_is_compared_by_line_but_for_those_left_out() {
    let lines = |text: &str| text.split_terminator('\n').map(str::to_owned).collect::<Vec<_>>();
    for (expected, seen, same) in [
        ("", "", true),
        ("", "a\n", false),
        ("a\n", "", false),
        ("a\nb\n", "a\nb\n", true),
        ("a\nb\n", "a\nb \n", false),
        ("a\n...\n", "a\n", true),
        ("a\n...\nd\n", "a\nb\nc\nd\n", true),
        ("a\n...\nd\n", "a\nb\nc\n", false),
        ("a ...\n", "a b\n", false),
    ] {
        assert_eq!(is_output(&lines(expected), &lines(seen)), same, "{expected:?} and {seen:?}");
    }
}

#[test]
fn page_is_read_block_by_block_and_what_nobody_executes_is_refused() {
    let page = "Text.\n\n`a/b.sh`:\n\n```sh\necho 1\n```\n\n```console\n$ sh a \\\n>  b\n1\n$ true\n```\n";
    let command = |line, text: &str, output: &[&str]| Command {
        line,
        text: text.into(),
        output: output.iter().map(|&line| line.into()).collect(),
    };
    let expected = [
        Block { line: 5, what: What::File { name: "a/b.sh".into(), text: "echo 1\n".into() } },
        Block { line: 9, what: What::Run(vec![command(10, "sh a \\\n b", &["1"]), command(13, "true", &[])]) },
    ];
    assert_eq!(blocks(page).unwrap(), expected);
    for (page, why) in [
        ("```text\na\n```\n", "line 1 of the page: nobody knows what to do with a block \"text\""),
        ("```\na\n```\n", "line 1 of the page: nobody knows"),
        ("Above:\n```sh\na\n```\n", "line 2 of the page: a file needs its name"),
        ("`../a`:\n```sh\na\n```\n", "line 2 of the page: a file needs its name"),
        ("`a`:\n```sh\n```\n```sh\n```\n", "line 4 of the page: a file needs its name"),
        ("```console\na\n```\n", "line 2 of the page: a console begins with a command"),
        ("```console\n$ a \\\nb\n```\n", "line 3 of the page: the command goes on"),
        ("```console\n$ a\n", "line 1 of the page: the block does not end"),
    ] {
        let error = blocks(page).unwrap_err().to_string();
        assert!(error.starts_with(why), "{page:?}: {error}");
    }
}
