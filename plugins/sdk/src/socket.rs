//! The socket that the speaker dials.
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves it: end that one, or choose another path.
    #[error("{0}: another process answers there")]
    Taken(PathBuf),
    /// What is there is not ours to remove.
    #[error("{0}: exists, and is not a socket")]
    NotASocket(PathBuf),
    /// The system refuses; most often the folder does not exist or belongs to somebody else.
    #[error("{path}: cannot make the socket")]
    Io {
        /// Of the socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path`. A socket that is there is replaced if nobody answers on it any more. The new one appears with its final
/// `mode` (0600: only for this user and root) and at once: nobody finds one that is not listened on yet.
///
/// # Errors
/// See [`SocketError`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(SocketError::Taken(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_socket_is_replaced_but_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path, 0o600), Err(SocketError::Taken(_))), "it is listened on");
        drop(first);
        listen(&path, 0o660).expect("nobody answers any more");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path, 0o600), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
