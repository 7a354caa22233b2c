//! Where plugins listen, and whether what is found there can be trusted.
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::info::{Fault, PluginState};

/// Why no plugin in the folder is spoken to: whoever can write there can be any plugin.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Make it, or correct --plugin-dir.
    #[error("{0}: does not exist")]
    Missing(PathBuf),
    /// Give the folder itself.
    #[error("{0}: is a symbolic link")]
    Symlink(PathBuf),
    /// Correct --plugin-dir.
    #[error("{0}: is not a folder")]
    NotAFolder(PathBuf),
    /// Take the right to write away from group and others.
    #[error("{path}: group or others may write there (mode {mode:o})")]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Give it to root, or to the speaker's user.
    #[error("{path}: belongs to user {uid}, neither root nor the speaker's own")]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The system refuses to say.
    #[error("{path}: cannot be read")]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Is this a folder that only root or this process's user can put sockets into?
///
/// # Errors
/// Why not.
pub fn check_dir(dir: &Path) -> Result<(), DirError> {
    let path = || dir.to_owned();
    let found = fs::symlink_metadata(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DirError::Missing(path()),
        _ => DirError::Io { path: path(), source },
    })?;
    let (mode, uid) = (found.mode() & 0o7777, found.uid());
    if found.file_type().is_symlink() {
        Err(DirError::Symlink(path()))
    } else if !found.is_dir() {
        Err(DirError::NotAFolder(path()))
    } else if mode & 0o022 != 0 {
        Err(DirError::Writable { path: path(), mode })
    } else if uid != 0 && uid != own_uid() {
        Err(DirError::Owner { path: path(), uid })
    } else {
        Ok(())
    }
}

/// The user that this process acts as.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// What tells one socket from the next of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    pub(crate) uid: u32,
}

/// The socket's file as it is; `None`: there is nothing.
pub(crate) fn look(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).ok().map(|found| Identity {
        device: found.dev(),
        inode: found.ino(),
        changed: (found.ctime(), found.ctime_nsec()),
        uid: found.uid(),
    })
}

/// Is there a socket that may be dialled?
pub(crate) fn check_socket(dir: &Path, path: &Path) -> Result<Identity, Fault> {
    let refused = |words: String| Fault::new(PluginState::Refused, words);
    check_dir(dir).map_err(|error| refused(ferrocast_core::actor::chain(&error)))?;
    let found = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::new(PluginState::Missing, format!("there is no {}", path.display())),
        _ => refused(format!("{}: {error}", path.display())),
    })?;
    if found.file_type().is_symlink() {
        return Err(refused(format!("{} is a symbolic link", path.display())));
    }
    if !found.file_type().is_socket() {
        return Err(refused(format!("{} is not a socket", path.display())));
    }
    look(path).ok_or_else(|| Fault::new(PluginState::Missing, format!("there is no {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn folder_is_refused_in_words_when_others_could_put_sockets_there() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        assert!(matches!(check_dir(&plugins), Err(DirError::Missing(_))));
        fs::create_dir(&plugins).unwrap();
        fs::set_permissions(&plugins, fs::Permissions::from_mode(0o755)).unwrap();
        check_dir(&plugins).unwrap();
        fs::set_permissions(&plugins, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(check_dir(&plugins).unwrap_err().to_string().contains("may write there (mode 775)"));
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(matches!(check_dir(&link), Err(DirError::Symlink(_))));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check_dir(&file), Err(DirError::NotAFolder(_))));
    }
}
