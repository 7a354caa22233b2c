//! Writes the corpus of every target: `cargo run -p ferrocast-fuzz --example seeds`. Files that it does not know stay: they are
//! findings of long runs.
use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    for target in ferrocast_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        for (name, octets) in (target.seeds)() {
            fs::write(folder.join(name), octets)?;
        }
    }
    Ok(())
}
