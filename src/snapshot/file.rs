//! ```text
//!   create   .name.<process>-<number>.tmp in the same folder, locked
//!   write    ..
//!   finish   to the disk -> renamed over the old one -> the folder to the disk
//!   dropped  before that: the temporary file is removed, the old file is untouched
//! ```
//! A file that is replaced as a whole or not at all, also when the process is killed or the machine loses power.
//!
//! A process that is killed leaves its temporary file; a later one that writes to the same place removes it, when it is a
//! minute old and nobody holds its lock. Whoever writes one holds its lock, whatever number the process has and on whatever
//! machine it is; where files cannot be locked, none is removed. Nothing with another name is touched.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::reader::{FOOTER_BYTES_ALL, Reader, read_footer, read_header};
use super::{ENDS_HERE, Fault, Info};

/// A temporary file that is younger may be about to be locked.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// A file that is being written, and is not there yet.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_kept: bool,
}

impl NewFile {
    /// Begins a file that will be at `path`, where there may be one. A symbolic link is followed. Only its owner may read
    /// a new one; one that is replaced keeps its permissions and, where the system allows it, its owner and group.
    ///
    /// # Errors
    /// Those of the operating system, and [`io::ErrorKind::InvalidInput`] for what is no regular file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = followed(path)?;
        let old = match fs::metadata(&path) {
            Ok(old) if old.is_dir() => return Err(io::Error::from_raw_os_error(IS_A_DIRECTORY)),
            Ok(old) if !old.is_file() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(name) = path.file_name() else {
            return Err(io::Error::from_raw_os_error(NO_SUCH_FILE));
        };
        let folder = folder_of(&path);
        remove_abandoned(folder, &prefix_of(name));
        let (temporary, file) = create_temporary(folder, &prefix_of(name))?;
        // From here on it is removed when anything fails.
        let new = Self { path: path.clone(), temporary, file, is_kept: false };
        // Where files cannot be locked, an abandoned one stays.
        let _ = new.file.try_lock();
        if let Some(old) = old {
            take_after(&new.file, &old)?;
        }
        Ok(new)
    }

    /// Has what was written so far go to the disk.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Puts it in its place. When the folder cannot be made to remember that through a loss of power, it says why.
    ///
    /// # Errors
    /// Those of the operating system; the old file is as it was.
    pub fn finish(mut self) -> io::Result<Option<io::Error>> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_kept = true;
        Ok(sync_folder(folder_of(&self.path)).err())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // It cannot be told any more, and what was asked for has failed with an error of its own.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// `EISDIR`, and what Windows says of a folder.
const IS_A_DIRECTORY: i32 = if cfg!(windows) { 5 } else { 21 };

/// `ENOENT`, which Windows numbers alike.
const NO_SUCH_FILE: i32 = 2;

/// Links that lead to each other are followed so often.
const LINKS_MAX: usize = 40;

/// Where a path leads, which need not be there yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut found = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&found) {
            Ok(to) => found = folder_of(&found).join(to),
            // It is no link, or not there.
            Err(_) => return Ok(found),
        }
    }
    // The system has an error for it.
    fs::canonicalize(path)
}

/// Gives a new file the owner, the group and the permissions of the one that it will replace. Where it must have another
/// group, that group may not do what the old one's was allowed.
#[cfg(unix)]
fn take_after(new: &File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let (is, mut mode) = (new.metadata()?, old.mode() & 0o777);
    if (is.uid(), is.gid()) != (old.uid(), old.gid())
        && fchown(new, Some(old.uid()), Some(old.gid())).is_err()
        && is.gid() != old.gid()
        && fchown(new, None, Some(old.gid())).is_err()
    {
        mode &= !0o070;
    }
    new.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn take_after(new: &File, old: &fs::Metadata) -> io::Result<()> {
    new.set_permissions(old.permissions())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How the names of temporary files begin.
fn prefix_of(name: &OsStr) -> String {
    // A name may have 255 bytes, and a letter four of them.
    let name: String = name.to_string_lossy().chars().take(48).collect();
    format!(".{name}.")
}

fn create_temporary(folder: &Path, prefix: &str) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{prefix}{}-{number}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // A process of the same number left it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what processes that were killed left behind. What cannot be looked at stays: it is nobody's error.
fn remove_abandoned(folder: &Path, prefix: &str) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        let is_temporary = is_temporary(entry.file_name().as_encoded_bytes(), prefix)
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_old = || {
            let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|then| then.elapsed().ok());
            age.is_some_and(|age| age > ABANDONED_AFTER)
        };
        if is_temporary
            && is_old()
            && OpenOptions::new().write(true).open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is named as `create_temporary` names them: `<process>-<number>.tmp` after the prefix, in digits.
fn is_temporary(name: &[u8], prefix: &str) -> bool {
    let numbers = name.strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_suffix(b".tmp")).unwrap_or_default();
    let mut parts = numbers.split(|&byte| byte == b'-');
    let mut is_number = || parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number() && is_number() && parts.next().is_none()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A snapshot that is open. What it says is read from the same file, also when another one comes to its place.
#[derive(Debug)]
pub struct Source {
    file: File,
    length: u64,
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// [`Fault::File`], also for what is no regular file.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        // Opening a pipe would wait for somebody to write to it.
        let found = fs::metadata(path)?;
        if found.is_dir() {
            return Err(io::Error::from_raw_os_error(IS_A_DIRECTORY).into());
        }
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file").into());
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    /// Bytes it has.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Reads it from the front. One at a time: readers share one place in the file.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn read(&self) -> Result<Reader<BufReader<File>>, Fault> {
        Reader::new(self.from(0)?, self.length)
    }

    /// Its header and footer. What lies between is not looked at.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn info(&self) -> Result<Info, Fault> {
        let (header, bytes) = read_header(&mut self.from(0)?, self.length)?;
        let Some(at) = self.length.checked_sub(FOOTER_BYTES_ALL as u64).filter(|&at| at >= bytes.len() as u64) else {
            return Err(Fault::format(self.length, ENDS_HERE));
        };
        let totals = read_footer(&mut self.from(at)?, at)?;
        Ok(Info { header, totals, file_bytes: self.length })
    }

    fn from(&self, at: u64) -> Result<BufReader<File>, Fault> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(at))?;
        Ok(BufReader::with_capacity(64 * 1024, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_as_a_temporary_file_is_one() {
        for name in [".users.7-0.tmp", ".users.4194304-18446744073709551615.tmp"] {
            assert!(is_temporary(name.as_bytes(), ".users."), "{name}");
        }
        for name in [
            ".users.json.8f3a.tmp",
            ".users.2024.backup.tmp",
            ".users.7.tmp",
            ".users.7-.tmp",
            ".users.-7.tmp",
            ".users.7-0-1.tmp",
            ".users.7-0.tmp~",
            ".users.7-0",
            ".users.a7-0.tmp",
            ".users.+7-0.tmp",
            ".users.\u{664}-0.tmp",
            ".users..tmp",
            ".users.json.7-0.tmp",
            "users.7-0.tmp",
        ] {
            assert!(!is_temporary(name.as_bytes(), ".users."), "{name}");
        }
    }
}
