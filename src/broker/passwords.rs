//! Passwords of broker users that `notary broker apply` makes up: a file each, readable by its owner only.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The longest password file, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Where a user's password is kept: `USER.password`, with all but letters, digits, `-`, `_` and `.` as `%` and two hex digits.
pub(super) fn file(folder: &Path, user: &str) -> PathBuf {
    let mut name = String::new();
    for byte in user.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(byte.into()),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    folder.join(format!("{name}.password"))
}

/// The password in `file`; one is made up and written if there is none.
///
/// # Errors
/// In one line, with the file.
pub(super) fn obtain(file: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |error: &dyn core::fmt::Display| format!("{}: {error}", file.display());
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > PASSWORD_BYTES_MAX => return Err(failed(&"too long for a password")),
        Ok(_) => {
            let text = Zeroizing::new(fs::read_to_string(file).map_err(|error| failed(&error))?);
            return match text.trim_end_matches(['\r', '\n']) {
                "" => Err(failed(&"it is empty")),
                password => Ok(Zeroizing::new(password.to_owned())),
            };
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&error)),
    }
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(&error))?;
    }
    // 192 bits: nobody guesses or remembers it.
    let mut random = Zeroizing::new([0_u8; 24]);
    getrandom::fill(&mut random[..]).map_err(|error| failed(&error))?;
    let password = Zeroizing::new(hex::encode(&random[..]));
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut opened = opened.map_err(|error| failed(&error))?;
    let written = writeln!(opened, "{}", password.as_str()).and_then(|()| opened.sync_all());
    written.map_err(|error| failed(&error))?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn passwords_are_made_up_once_and_readable_by_their_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file(&folder.path().join("secrets"), "O=Bob, L=../Rome, C=IT");
        assert_eq!(
            file.file_name().and_then(|name| name.to_str()),
            Some("O%3DBob%2C%20L%3D..%2FRome%2C%20C%3DIT.password")
        );
        let made = obtain(&file).expect("made up");
        assert_eq!(made.len(), 48);
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(obtain(&file).expect("read"), made);
        fs::write(&file, "given\n").expect("written");
        assert_eq!(obtain(&file).expect("read").as_str(), "given");
        fs::write(&file, "\n").expect("written");
        assert!(obtain(&file).is_err(), "an empty password lets everybody in");
    }
}
