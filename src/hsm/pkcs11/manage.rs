//! What the `keys` verbs do on tokens: make, list, import. Blocking, and in the process of the verb itself, which has nothing to
//! lose: a module that hangs or crashes takes no notary with it.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session as TokenSession;
use cryptoki::slot::{Slot, TokenInfo};
use rsa::rand_core::OsRng;
use zeroize::Zeroize;

use super::frames::{KeyPlace, Pin, Refusal};
use super::pin::{NoPin, PinNotes};
use super::profile::{CurveForm, Login};
use super::token::{self, Module, explain};
use super::{Options, forms};
use crate::domain::{PublicKey, SignatureScheme};
use crate::keys::PrivateKey;

/// Bits of a new RSA key: Corda's default (PROTOCOL e.5).
const RSA_BITS: u64 = 3072;
/// Bits of the throw-away RSA key under which a key is wrapped to be imported: it lives for a second, and its 245 bytes hold any
/// key that we import (138 bytes for P-256).
const WRAPPING_BITS: u64 = 2048;
/// 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// Bytes of an id that is drawn for a new key.
const ID_LEN: usize = 8;

/// Why a token did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManageError {
    /// Module, token or key is not there, or does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The PIN was refused, or must not be tried.
    #[error("PIN: {0}")]
    Pin(String),
    /// Something is at the place already; keys are never overwritten.
    #[error("token {token:?} has a key with {place} already")]
    Exists {
        /// The token.
        token: String,
        /// The place.
        place: KeyPlace,
    },
    /// The token cannot do this.
    #[error("{0}")]
    Refused(String),
}

impl From<Refusal> for ManageError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Absent(why) => Self::Unavailable(why),
            Refusal::Pin(why) | Refusal::PinNotTried(why) => Self::Pin(why),
        }
    }
}

fn failed(what: &str) -> impl Fn(cryptoki::error::Error) -> ManageError {
    move |error| ManageError::Refused(format!("{what}: {}", explain(&error)))
}

/// The module, for a verb. A process makes one.
pub struct Manager {
    module: Module,
    options: Options,
    notes: PinNotes,
}

/// A token as it is listed.
#[derive(Clone, Debug)]
pub struct ListedToken {
    /// Its label.
    pub label: String,
    /// Maker, model, serial number.
    pub device: String,
    /// Whether the settings name it.
    pub named: bool,
}

/// A private key as it is listed.
#[derive(Clone, Debug)]
pub struct ListedKey {
    /// Where it lies.
    pub place: KeyPlace,
    /// Its public half, or why that is not known.
    pub public_key: Result<PublicKey, String>,
    /// The attributes that the token tells.
    pub attributes: Vec<(String, bool)>,
}

impl Manager {
    /// Loads the module.
    ///
    /// # Errors
    /// [`ManageError::Unavailable`]; also if this process has loaded one before.
    pub fn new(options: Options) -> Result<Self, ManageError> {
        let module = Module::load(&options.module)?;
        let notes = PinNotes::read(options.pin.clone());
        Ok(Self { module, options, notes })
    }

    /// Every token that is there.
    ///
    /// # Errors
    /// [`ManageError::Unavailable`].
    pub fn tokens(&self) -> Result<Vec<ListedToken>, ManageError> {
        let listed = |(_, info): (Slot, TokenInfo)| {
            let label = info.label().trim_end().to_owned();
            let named = self.options.tokens.contains(&label);
            ListedToken { label, device: token::token_facts(&self.module, &info).token, named }
        };
        Ok(self.module.tokens()?.into_iter().map(listed).collect())
    }

    /// Logs in on a token; the PIN is tried at most once, as the worker does.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn session(&self, token: &str) -> Result<Session<'_>, ManageError> {
        let (slot, info) = self.module.token(token)?;
        let pin = match self.options.profile.login {
            Login::Pin => Some(Pin(self.notes.pin_for(token).map_err(|error| match error {
                NoPin::Refused(why) => ManageError::Pin(why),
                missing @ NoPin::Missing(_) => ManageError::Pin(missing.to_string()),
            })?)),
            Login::AtDevice | Login::None => None,
        };
        let session = self.module.open_session(slot, true)?;
        let logged_in = token::log_in(&session, &info, &self.options.profile, pin.as_ref());
        if let Err(Refusal::Pin(_)) = &logged_in {
            self.notes.refused(token);
        }
        logged_in?;
        Ok(Session { manager: self, token: token.to_owned(), session })
    }
}

/// A login on one token, to change what is on it.
pub struct Session<'a> {
    manager: &'a Manager,
    token: String,
    session: TokenSession,
}

/// How an imported key came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imported {
    /// Wrapped under a key that the token made for it: no call of the module saw it in clear.
    Wrapped,
    /// As it is: the token cannot unwrap.
    InClear,
}

impl Session<'_> {
    /// Every private key on the token.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn keys(&self) -> Result<Vec<ListedKey>, ManageError> {
        let all = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
        let found = self.session.find_objects(&all).map_err(failed("the keys cannot be listed"))?;
        let listed = |private: ObjectHandle| {
            let place = self.place_of(private);
            let public_key = token::find_key(&self.session, &place).map(|key| key.public_key);
            ListedKey {
                public_key: public_key.map_err(|refusal| refusal.to_string()),
                attributes: token::uses(&self.session, private),
                place,
            }
        };
        Ok(found.into_iter().map(listed).collect())
    }

    fn place_of(&self, object: ObjectHandle) -> KeyPlace {
        let told = self.session.get_attributes(object, &[AttributeType::Label, AttributeType::Id]);
        let mut place = KeyPlace { label: String::new(), id: Vec::new() };
        for attribute in told.unwrap_or_default() {
            match attribute {
                Attribute::Label(label) => place.label = String::from_utf8_lossy(&label).into_owned(),
                Attribute::Id(id) => place.id = id,
                _ => {}
            }
        }
        place
    }

    /// Signs with the key at the settings' place.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ManageError> {
        let options = &self.manager.options;
        let key = token::find_key(&self.session, &options.key)?;
        token::sign(&self.session, key.private, key.public_key.scheme(), &options.profile, message)
            .map_err(|failure| ManageError::Refused(failure.reason))
    }

    /// The public half of the key at the settings' place.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn public_key(&self) -> Result<PublicKey, ManageError> {
        Ok(token::find_key(&self.session, &self.manager.options.key)?.public_key)
    }

    /// Makes a key at the settings' place that never leaves the token and only signs; proves it by a signature.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn generate(&self, scheme: SignatureScheme) -> Result<(PublicKey, KeyPlace), ManageError> {
        let place = self.free_place()?;
        let profile = &self.manager.options.profile;
        let (mechanism, kind) = match scheme {
            SignatureScheme::Ed25519 => {
                let curve = match profile.ed25519_parameters {
                    CurveForm::Oid => forms::ED25519_OID,
                    CurveForm::Name => forms::ED25519_NAME,
                };
                (Mechanism::EccEdwardsKeyPairGen, vec![Attribute::EcParams(curve.to_vec())])
            }
            SignatureScheme::EcdsaSecp256r1Sha256 => {
                (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(forms::P256_OID.to_vec())])
            }
            SignatureScheme::EcdsaSecp256k1Sha256 => {
                (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(forms::K256_OID.to_vec())])
            }
            SignatureScheme::RsaSha256 => (
                Mechanism::RsaPkcsKeyPairGen,
                vec![Attribute::ModulusBits(RSA_BITS.into()), Attribute::PublicExponent(RSA_EXPONENT.to_vec())],
            ),
            SignatureScheme::Composite => return Err(ManageError::Refused("a composite key is made of others".into())),
        };
        let public = [public_template(&place), kind].concat();
        first_accepted(&private_templates(&place), |private| {
            self.session
                .generate_key_pair(&mechanism, &public, private)
                .map_err(failed(&format!("no key of scheme {} was made", scheme.name())))
        })?;
        Ok((self.proven(&place)?, place))
    }

    /// Puts a key from outside at the settings' place; it never leaves the token again, and only signs. Proves it by a signature.
    ///
    /// # Errors
    /// [`ManageError`].
    pub fn import(&self, key: &PrivateKey) -> Result<Imported, ManageError> {
        let place = self.free_place()?;
        let scheme = key.public_key().scheme();
        let spki = key.public_key().as_spki();
        // The point at the end of the encoding, in the OCTET STRING that the standard wants around it.
        let (curve, key_type, point_len) = match scheme {
            SignatureScheme::Ed25519 => (forms::ED25519_OID, KeyType::EC_EDWARDS, 32),
            SignatureScheme::EcdsaSecp256k1Sha256 => (forms::K256_OID, KeyType::EC, 65),
            _ => (forms::P256_OID, KeyType::EC, 65),
        };
        let point = &spki[spki.len() - point_len..];
        let kind = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(key_type)];
        let private = private_templates(&place).map(|template| [kind.clone(), template].concat());
        let how = match first_accepted(&private, |template| self.unwrap(key, template)) {
            Ok(()) => Imported::Wrapped,
            Err(_) => {
                first_accepted(&private, |template| self.create(key, curve, template))?;
                Imported::InClear
            }
        };
        let public = [
            vec![
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::KeyType(key_type),
                Attribute::EcParams(curve.to_vec()),
                Attribute::EcPoint([&[4, point_len as u8], point].concat()),
            ],
            public_template(&place),
        ]
        .concat();
        self.session.create_object(&public).map_err(failed("the public half was not stored"))?;
        match self.proven(&place)? {
            public_key if public_key == *key.public_key() => Ok(how),
            other => Err(ManageError::Refused(format!("the token took the key for another one: {other:?}"))),
        }
    }

    /// Hands the key over in clear.
    fn create(&self, key: &PrivateKey, curve: &[u8], template: &[Attribute]) -> Result<(), ManageError> {
        let mut template = [template, &[Attribute::EcParams(curve.to_vec())]].concat();
        // Pushed, not concatenated, which would leave a copy behind that nobody wipes.
        template.push(Attribute::Value(key.to_secret_bytes().to_vec()));
        let created = self.session.create_object(&template);
        for attribute in &mut template {
            if let Attribute::Value(secret) = attribute {
                secret.zeroize();
            }
        }
        created.map(drop).map_err(failed("the token takes no key from outside"))
    }

    /// Has the token unwrap the key with an RSA key made for that, which it keeps to itself and which is gone afterwards.
    fn unwrap(&self, key: &PrivateKey, template: &[Attribute]) -> Result<(), ManageError> {
        let refused = failed("the token unwraps no key");
        let public = [
            Attribute::Token(false),
            Attribute::Encrypt(true),
            Attribute::Wrap(true),
            Attribute::ModulusBits(WRAPPING_BITS.into()),
            Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
        ];
        let private = [
            Attribute::Token(false),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Unwrap(true),
        ];
        let (public, private) =
            self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).map_err(&refused)?;
        let unwrapped = self.rsa_key(public).and_then(|wrapping| {
            let wrapped = wrapping
                .encrypt(&mut OsRng, rsa::Pkcs1v15Encrypt, key.to_pkcs8_der().as_bytes())
                .map_err(|error| ManageError::Refused(format!("the key cannot be wrapped: {error}")))?;
            self.session.unwrap_key(&Mechanism::RsaPkcs, private, &wrapped, template).map_err(&refused)
        });
        // Both end with this session at the latest.
        let _ = (self.session.destroy_object(public), self.session.destroy_object(private));
        unwrapped.map(drop)
    }

    fn rsa_key(&self, public: ObjectHandle) -> Result<rsa::RsaPublicKey, ManageError> {
        let types = [AttributeType::Modulus, AttributeType::PublicExponent];
        let told = self.session.get_attributes(public, &types).map_err(failed("the wrapping key cannot be read"))?;
        let number = |wanted: AttributeType| {
            told.iter().find_map(|attribute| match attribute {
                Attribute::Modulus(bytes) | Attribute::PublicExponent(bytes)
                    if attribute.attribute_type() == wanted =>
                {
                    Some(rsa::BigUint::from_bytes_be(bytes))
                }
                _ => None,
            })
        };
        let unread = || ManageError::Refused("the wrapping key cannot be read".into());
        let (modulus, exponent) = (
            number(AttributeType::Modulus).ok_or_else(unread)?,
            number(AttributeType::PublicExponent).ok_or_else(unread)?,
        );
        rsa::RsaPublicKey::new(modulus, exponent).map_err(|_| unread())
    }

    /// The settings' place, completed by an id, if no key lies there yet.
    fn free_place(&self) -> Result<KeyPlace, ManageError> {
        let place = &self.manager.options.key;
        let template = token::template(ObjectClass::PRIVATE_KEY, place);
        let found = self.session.find_objects(&template).map_err(failed("the token cannot be searched"))?;
        if !found.is_empty() {
            return Err(ManageError::Exists { token: self.token.clone(), place: place.clone() });
        }
        let mut place = place.clone();
        if place.id.is_empty() {
            // Many tools find the public half by its id.
            place.id = vec![0; ID_LEN];
            crate::keys::random(&mut place.id).map_err(|error| ManageError::Unavailable(error.to_string()))?;
        }
        Ok(place)
    }

    /// The public key at `place`, after a signature that it verifies.
    fn proven(&self, place: &KeyPlace) -> Result<PublicKey, ManageError> {
        const MESSAGE: &[u8] = b"notary-worker: this proves a new key, and nothing else";
        let key = token::find_key(&self.session, place)?;
        let profile = &self.manager.options.profile;
        let signature = token::sign(&self.session, key.private, key.public_key.scheme(), profile, MESSAGE)
            .map_err(|failure| ManageError::Refused(format!("the new key does not sign: {}", failure.reason)))?;
        match key.public_key.verify(MESSAGE, &signature) {
            Ok(()) => Ok(key.public_key),
            Err(error) => Err(ManageError::Refused(format!("the new key signs wrongly: {error}"))),
        }
    }
}

fn placed(place: &KeyPlace) -> Vec<Attribute> {
    let mut template = vec![Attribute::Token(true), Attribute::Id(place.id.clone())];
    if !place.label.is_empty() {
        template.push(Attribute::Label(place.label.clone().into_bytes()));
    }
    template
}

fn public_template(place: &KeyPlace) -> Vec<Attribute> {
    [placed(place), vec![Attribute::Private(false), Attribute::Verify(true)]].concat()
}

/// Never leaves the token, and signs: nothing else. Some tokens grant every use that a template does not deny, others refuse a
/// template that denies uses which such a key cannot have: the stricter one is tried first.
fn private_templates(place: &KeyPlace) -> [Vec<Attribute>; 2] {
    let essential = [
        placed(place),
        vec![
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ],
    ]
    .concat();
    let denied = vec![
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::SignRecover(false),
    ];
    [[essential.clone(), denied].concat(), essential]
}

/// The first success with one of the templates, or the last failure.
fn first_accepted<T>(
    templates: &[Vec<Attribute>],
    mut attempt: impl FnMut(&[Attribute]) -> Result<T, ManageError>,
) -> Result<T, ManageError> {
    let mut result = Err(ManageError::Refused("no template".into()));
    for template in templates {
        result = attempt(template);
        if result.is_ok() {
            break;
        }
    }
    result
}
