//! One PKCS#11 module in this process: its tokens, the key on one of them, signatures. Blocking; only keeper processes and the
//! `keys` verbs come here, never the worker itself.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::forms;
use super::frames::{Facts, KeyPlace, Pin, Refusal};
use super::profile::{Hashing, Login, Profile};
use crate::domain::{PublicKey, SignatureScheme};

/// A module initialised twice, or by two threads at once, can crash: each process loads one, once.
static LOADED: AtomicBool = AtomicBool::new(false);

/// A loaded module.
pub(super) struct Module {
    pkcs11: Pkcs11,
}

impl Module {
    /// Loads and initialises the module; once in a process.
    pub(super) fn load(path: &Path) -> Result<Self, Refusal> {
        let absent = |why: String| Refusal::Absent(format!("module {}: {why}", path.display()));
        if LOADED.swap(true, Ordering::SeqCst) {
            return Err(absent("a process loads one module, once".into()));
        }
        let pkcs11 = Pkcs11::new(path).map_err(|error| absent(explain(&error)))?;
        pkcs11
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| absent(explain(&error)))?;
        Ok(Self { pkcs11 })
    }

    /// Its maker, description and version.
    pub(super) fn describe(&self) -> String {
        match self.pkcs11.get_library_info() {
            Ok(info) => format!(
                "{} {} {} (PKCS#11 {})",
                info.manufacturer_id().trim(),
                info.library_description().trim(),
                info.library_version(),
                info.cryptoki_version()
            ),
            Err(error) => explain(&error),
        }
    }

    /// The tokens that are there. One that does not tell about itself is left out; it must not hide the others.
    pub(super) fn tokens(&self) -> Result<Vec<(Slot, TokenInfo)>, Refusal> {
        let slots = self.pkcs11.get_slots_with_token().map_err(|error| Refusal::Absent(explain(&error)))?;
        let told = slots.into_iter().filter_map(|slot| Some((slot, self.pkcs11.get_token_info(slot).ok()?)));
        Ok(told.filter(|(_, info)| info.token_initialized()).collect())
    }

    /// The token called `label`.
    pub(super) fn token(&self, label: &str) -> Result<(Slot, TokenInfo), Refusal> {
        let tokens = self.tokens()?;
        let names: Vec<String> = tokens.iter().map(|(_, info)| format!("{:?}", info.label().trim_end())).collect();
        let mut matching = tokens.into_iter().filter(|(_, info)| info.label().trim_end() == label);
        match (matching.next(), matching.next()) {
            (Some(token), None) => Ok(token),
            (None, _) => Err(Refusal::Absent(format!(
                "no token is called {label:?}; there {}",
                if names.is_empty() { "is none".into() } else { format!("are {}", names.join(", ")) }
            ))),
            (Some(_), Some(_)) => Err(Refusal::Absent(format!("several tokens are called {label:?}"))),
        }
    }

    pub(super) fn open_session(&self, slot: Slot, writable: bool) -> Result<Session, Refusal> {
        let opened = if writable { self.pkcs11.open_rw_session(slot) } else { self.pkcs11.open_ro_session(slot) };
        opened.map_err(|error| Refusal::Absent(explain(&error)))
    }

    /// Ends the use of the module; sessions must be closed.
    pub(super) fn finish(self) {
        // Nothing can be done about a module that cannot end; the process ends anyhow.
        let _ = self.pkcs11.finalize();
    }
}

/// What a token says of itself.
pub(super) fn token_facts(module: &Module, info: &TokenInfo) -> Facts {
    let sessions_max = match info.max_session_count() {
        Limit::Max(count) => Some(count),
        Limit::Unavailable | Limit::Infinite => None,
    };
    let token = [info.manufacturer_id(), info.model(), info.serial_number()].map(str::trim).join(" ");
    Facts {
        module: module.describe(),
        token,
        pin_count_low: info.user_pin_count_low(),
        sessions_max,
        ..Facts::default()
    }
}

/// Logs the user in: one try, and none if a wrong one would lock the token. The login holds for all sessions of the process.
pub(super) fn log_in(session: &Session, info: &TokenInfo, profile: &Profile, pin: Option<&Pin>) -> Result<(), Refusal> {
    let pin = match profile.login {
        Login::None => return Ok(()),
        Login::AtDevice => None,
        Login::Pin => {
            let pin = pin.ok_or_else(|| Refusal::PinNotTried("no PIN is configured (signing.pin)".into()))?;
            Some(AuthPin::from(pin.0.as_str()))
        }
    };
    if info.user_pin_locked() {
        return Err(Refusal::PinNotTried(
            "the token is locked (CKF_USER_PIN_LOCKED); its security officer unlocks it".into(),
        ));
    }
    if info.user_pin_final_try() {
        return Err(Refusal::PinNotTried(
            "one more wrong PIN would lock the token (CKF_USER_PIN_FINAL_TRY); log in once by hand, which resets the count".into(),
        ));
    }
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(error) => Err(match &error {
            Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            ) => Refusal::Pin(explain(&error)),
            _ => Refusal::Absent(explain(&error)),
        }),
    }
}

/// A key on a token.
pub(super) struct Key {
    pub(super) private: ObjectHandle,
    pub(super) public_key: PublicKey,
    pub(super) public_from: &'static str,
}

/// The attributes that say what may be done with a private key, and their names.
const USES: [(AttributeType, &str); 11] = [
    (AttributeType::Private, "CKA_PRIVATE"),
    (AttributeType::Sensitive, "CKA_SENSITIVE"),
    (AttributeType::Extractable, "CKA_EXTRACTABLE"),
    (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE"),
    (AttributeType::NeverExtractable, "CKA_NEVER_EXTRACTABLE"),
    (AttributeType::Local, "CKA_LOCAL"),
    (AttributeType::Sign, "CKA_SIGN"),
    (AttributeType::Decrypt, "CKA_DECRYPT"),
    (AttributeType::Unwrap, "CKA_UNWRAP"),
    (AttributeType::Derive, "CKA_DERIVE"),
    (AttributeType::AlwaysAuthenticate, "CKA_ALWAYS_AUTHENTICATE"),
];

/// Which of [`USES`] the token tells.
pub(super) fn uses(session: &Session, private: ObjectHandle) -> Vec<(String, bool)> {
    let types: Vec<AttributeType> = USES.iter().map(|(attribute, _)| *attribute).collect();
    let told = session.get_attributes(private, &types).unwrap_or_default();
    let named = |attribute: &Attribute| {
        let (_, name) = USES.iter().find(|(known, _)| *known == attribute.attribute_type())?;
        let value = match attribute {
            Attribute::Private(value)
            | Attribute::Sensitive(value)
            | Attribute::Extractable(value)
            | Attribute::AlwaysSensitive(value)
            | Attribute::NeverExtractable(value)
            | Attribute::Local(value)
            | Attribute::Sign(value)
            | Attribute::Decrypt(value)
            | Attribute::Unwrap(value)
            | Attribute::Derive(value)
            | Attribute::AlwaysAuthenticate(value) => *value,
            _ => return None,
        };
        Some(((*name).to_owned(), value))
    };
    told.iter().filter_map(named).collect()
}

/// The template that finds objects of `class` at a place.
pub(super) fn template(class: ObjectClass, place: &KeyPlace) -> Vec<Attribute> {
    let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
    if !place.label.is_empty() {
        template.push(Attribute::Label(place.label.clone().into_bytes()));
    }
    if !place.id.is_empty() {
        template.push(Attribute::Id(place.id.clone()));
    }
    template
}

fn find(session: &Session, class: ObjectClass, place: &KeyPlace) -> Result<Vec<ObjectHandle>, Refusal> {
    session.find_objects(&template(class, place)).map_err(|error| Refusal::Absent(explain(&error)))
}

/// The private key at `place`, for a session that needs no more than its handle.
pub(super) fn find_private(session: &Session, place: &KeyPlace) -> Result<ObjectHandle, Refusal> {
    match find(session, ObjectClass::PRIVATE_KEY, place)?[..] {
        [private] => Ok(private),
        [] => Err(Refusal::Absent(format!("no private key with {place}"))),
        ref several => Err(Refusal::Absent(format!("{} private keys with {place}", several.len()))),
    }
}

/// The key at `place`, with its public half from the public object, from a certificate, or from the private object itself.
pub(super) fn find_key(session: &Session, place: &KeyPlace) -> Result<Key, Refusal> {
    let private = find_private(session, place)?;
    let mut candidates = Vec::new();
    for public in find(session, ObjectClass::PUBLIC_KEY, place)? {
        candidates.push(("public object", public));
    }
    for certificate in find(session, ObjectClass::CERTIFICATE, place)? {
        candidates.push(("certificate", certificate));
    }
    candidates.push(("private object", private));
    let mut problem = String::new();
    for (public_from, object) in candidates {
        match read_public(session, object) {
            Ok(public_key) => return Ok(Key { private, public_key, public_from }),
            Err(error) => problem = format!("{public_from}: {error}"),
        }
    }
    Err(Refusal::Absent(format!("no public half of the key with {place}; {problem}")))
}

/// The public key that an object holds, whatever its class.
pub(super) fn read_public(session: &Session, object: ObjectHandle) -> Result<PublicKey, String> {
    let types = [
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::CertificateType,
    ];
    let told = session.get_attributes(object, &types).map_err(|error| explain(&error))?;
    let (mut parameters, mut point, mut modulus, mut exponent, mut certificate) = (None, None, None, None, false);
    for attribute in told {
        match attribute {
            Attribute::EcParams(bytes) => parameters = Some(bytes),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            Attribute::Modulus(bytes) => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) => exponent = Some(bytes),
            Attribute::CertificateType(_) => certificate = true,
            _ => {}
        }
    }
    if certificate {
        let value = session.get_attributes(object, &[AttributeType::Value]).map_err(|error| explain(&error))?;
        return match &value[..] {
            [Attribute::Value(der)] => forms::certificate_public_key(der),
            _ => Err("a certificate without its value".into()),
        };
    }
    match (parameters, point, modulus, exponent) {
        (Some(parameters), Some(point), ..) => forms::ec_public_key(&parameters, &point),
        (_, _, Some(modulus), Some(exponent)) => forms::rsa_public_key(&modulus, &exponent),
        _ => Err("it has neither a point with its curve nor a modulus with its exponent".into()),
    }
}

/// Why a token did not sign.
pub(super) struct SignFailure {
    pub(super) reason: String,
    pub(super) harmless: bool,
}

/// Signs `message`; the signature has the form of the scheme.
pub(super) fn sign(
    session: &Session,
    private: ObjectHandle,
    scheme: SignatureScheme,
    profile: &Profile,
    message: &[u8],
) -> Result<Vec<u8>, SignFailure> {
    let signed = match (scheme, profile) {
        (SignatureScheme::Ed25519, Profile { ed25519_mechanism: 0, .. }) => {
            let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
            session.sign(&mechanism, private, message)
        }
        (SignatureScheme::Ed25519, profile) => {
            MechanismType::new_vendor_defined(profile.ed25519_mechanism).and_then(|number| {
                let mechanism = Mechanism::VendorDefined(VendorDefinedMechanism::new::<u8>(number, None));
                session.sign(&mechanism, private, message)
            })
        }
        (SignatureScheme::RsaSha256, Profile { rsa: Hashing::Token, .. }) => {
            session.sign(&Mechanism::Sha256RsaPkcs, private, message)
        }
        (SignatureScheme::RsaSha256, _) => session.sign(&Mechanism::RsaPkcs, private, &forms::digest_info(message)),
        (_, Profile { ecdsa: Hashing::Token, .. }) => session.sign(&Mechanism::EcdsaSha256, private, message),
        (_, _) => session.sign(&Mechanism::Ecdsa, private, &forms::digest(message)),
    };
    let raw = signed.map_err(|error| {
        let harmless = code(&error).is_some_and(|code| profile.harmless.contains(&code));
        SignFailure { reason: explain(&error), harmless }
    })?;
    forms::signature(scheme, raw).map_err(|reason| SignFailure { reason, harmless: false })
}

/// An error in a few words: the crate's texts are paragraphs of the standard.
pub(super) fn explain(error: &Error) -> String {
    match (error, code(error)) {
        (Error::Pkcs11(_, function), Some(code)) => format!("C_{function:?}: {code}"),
        _ => error.to_string(),
    }
}

/// The return code by its name in the standard, such as `CKR_DEVICE_REMOVED`.
fn code(error: &Error) -> Option<String> {
    match error {
        Error::Pkcs11(RvError::VendorDefined(code), _) => Some(format!("CKR_VENDOR_DEFINED_{code:#x}")),
        Error::Pkcs11(code, _) => Some(format!("CKR{}", underscored(&format!("{code:?}")))),
        _ => None,
    }
}

/// `DeviceRemoved` as `_DEVICE_REMOVED`.
fn underscored(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn errors_name_the_function_and_the_code_of_the_standard() {
        let error = Error::Pkcs11(RvError::DeviceRemoved, Function::SignInit);
        assert_eq!(explain(&error), "C_SignInit: CKR_DEVICE_REMOVED");
        let error = Error::Pkcs11(RvError::VendorDefined(0x8000_0001), Function::Sign);
        assert_eq!(explain(&error), "C_Sign: CKR_VENDOR_DEFINED_0x80000001");
    }
}
