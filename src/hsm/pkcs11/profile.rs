//! What differs between vendors' modules, as data: `hsm/profiles/*.toml`, or a file of the operator's.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How to speak to a vendor's module. A file says only what differs from the standard.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The vendor's name for it.
    pub name: String,
    /// Whether this project ran its tests against the real thing. The others follow public documents.
    pub tested: bool,
    /// Where the facts come from.
    pub source: String,
    /// How to log in.
    #[serde(default)]
    pub login: Login,
    /// Mechanism number of Ed25519 if it is the vendor's own; 0 is the standard's `CKM_EDDSA`.
    #[serde(default)]
    pub ed25519_mechanism: u64,
    /// Who computes the digest for ECDSA.
    #[serde(default)]
    pub ecdsa: Hashing,
    /// Who computes the digest for RSA.
    #[serde(default)]
    pub rsa: Hashing,
    /// How a new Ed25519 key names its curve.
    #[serde(default)]
    pub ed25519_parameters: CurveForm,
    /// Most sessions for one token; 0 leaves it to the token.
    #[serde(default)]
    pub sessions_max: usize,
    /// Return codes of a signature (`CKR_...`) after which the session still works: the request goes to the next token, and
    /// nothing is opened anew. After every other code everything is.
    #[serde(default)]
    pub harmless: Vec<String>,
}

/// How to log in.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Login {
    /// `C_Login` of the user with the PIN.
    #[default]
    Pin,
    /// `C_Login` without a PIN: it is entered at the device (protected authentication path).
    AtDevice,
    /// No login: keys are open to whoever reaches the module.
    None,
}

/// Who computes the digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Hashing {
    /// We do; the token signs 32 bytes (`CKM_ECDSA`), or their DigestInfo (`CKM_RSA_PKCS`).
    #[default]
    Ours,
    /// The token does (`CKM_ECDSA_SHA256`, `CKM_SHA256_RSA_PKCS`).
    Token,
}

/// The forms of `CKA_EC_PARAMS` for Ed25519 (PKCS#11 v3.1, 6.3.5).
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum CurveForm {
    /// OBJECT IDENTIFIER 1.3.101.112.
    #[default]
    Oid,
    /// PrintableString `edwards25519`.
    Name,
}

macro_rules! profiles {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/hsm/profiles/", $name, ".toml")))),+]
    };
}

/// Name and text of every profile that comes with the program.
const EMBEDDED: &[(&str, &str)] = profiles![
    "generic",
    "softhsm2",
    "aws-cloudhsm",
    "entrust-nshield",
    "futurex",
    "securosys-primus",
    "thales-luna",
    "utimaco"
];

/// The longest profile file, in bytes. Ours have some hundred.
const FILE_LEN_MAX: u64 = 64 * 1024;

impl Profile {
    /// The profile called `name`, or the one in the file of that path.
    ///
    /// # Errors
    /// What is wrong, for operators.
    pub fn find(name: &str) -> Result<Self, String> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
            return Self::parse(text);
        }
        let known = || Self::names().collect::<Vec<_>>().join(", ");
        let path = Path::new(name);
        let len = std::fs::metadata(path)
            .map_err(|error| format!("{name:?} is no profile ({}) and no file: {error}", known()))?
            .len();
        if len > FILE_LEN_MAX {
            return Err(format!("{name}: longer than {FILE_LEN_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        Self::parse(&text).map_err(|error| format!("{name}: {error}"))
    }

    /// The names of those that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        match profile.harmless.iter().find(|code| !code.starts_with("CKR_")) {
            Some(code) => Err(format!("harmless: {code:?} is no return code (CKR_...)")),
            None => Ok(profile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_ours_is_valid_and_only_what_was_run_is_called_tested() {
        for name in Profile::names() {
            let profile = Profile::find(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(profile.tested, name == "softhsm2", "{name}");
            assert!(!profile.source.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_profile_may_be_a_file_and_its_faults_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.toml");
        let path = path.to_str().expect("UTF-8");
        let with = |more: &str| {
            std::fs::write(path, format!("name = \"M\"\ntested = false\nsource = \"me\"\n{more}\n")).expect("written");
            Profile::find(path)
        };
        assert_eq!(with("ecdsa = \"token\"").expect("valid").ecdsa, Hashing::Token);
        for (wrong, named) in
            [("ecdsa = \"both\"", "both"), ("colour = 1", "colour"), ("harmless = [\"OK\"]", "harmless")]
        {
            let error = with(wrong).expect_err("invalid");
            assert!(error.contains(named) && error.contains("mine.toml"), "{error}");
        }
        assert!(Profile::find("no-such").expect_err("unknown").contains("softhsm2"));
    }
}
