//! Keys, names and parties.

use super::amqp::{Object, View, Writer};
use super::error::WireError;
use super::types::Type;
use crate::domain::{Party, PublicKey, X500Name};

const PUBLIC_KEY: &str = "java.security.PublicKey";

/// Reads a public key in its SubjectPublicKeyInfo form.
pub(super) fn read_public_key(view: View<'_, '_>) -> Result<PublicKey, WireError> {
    let [spki] = view.custom(PUBLIC_KEY)?.exactly(view)?;
    PublicKey::from_spki(spki.binary()?).or_else(|error| view.refuse(error.to_string()))
}

/// Reads a `CordaX500Name`. Whether its attributes fit Corda's rules is for whoever compares names.
pub(super) fn read_name(view: View<'_, '_>) -> Result<X500Name, WireError> {
    let object = view.object(Type::CordaX500Name)?;
    let optional = |name| optional_string(&object, name);
    let mandatory = |name| Ok::<_, WireError>(object.field(name)?.string()?.to_owned());
    let name = X500Name {
        common_name: optional("commonName")?,
        organisation_unit: optional("organisationUnit")?,
        organisation: mandatory("organisation")?,
        locality: mandatory("locality")?,
        state: optional("state")?,
        country: mandatory("country")?,
    };
    // Corda checks names where it makes them, so a node could not have read this one either.
    name.checked().or_else(|_| view.refuse("a name is no legal name"))
}

fn optional_string(object: &Object<'_, '_>, name: &'static str) -> Result<Option<String>, WireError> {
    object.optional(name)?.map(|view| view.string().map(str::to_owned)).transpose()
}

/// Reads a `Party`.
pub(super) fn read_party(view: View<'_, '_>) -> Result<Party, WireError> {
    let object = view.object(Type::Party)?;
    Ok(Party { name: read_name(object.field("name")?)?, owning_key: read_public_key(object.field("owningKey")?)? })
}

pub(super) fn write_public_key(w: &mut Writer, key: &PublicKey) {
    w.custom_binary(PUBLIC_KEY, key.as_spki());
}

pub(super) fn write_party(w: &mut Writer, party: &Party) {
    w.composite(Type::Party, |w| {
        write_name(w, &party.name);
        write_public_key(w, &party.owning_key);
    });
}

pub(super) fn write_name(w: &mut Writer, name: &X500Name) {
    w.composite(Type::CordaX500Name, |w| {
        w.optional(name.common_name.as_deref(), Writer::string);
        w.string(&name.country);
        w.string(&name.locality);
        w.string(&name.organisation);
        w.optional(name.organisation_unit.as_deref(), Writer::string);
        w.optional(name.state.as_deref(), Writer::string);
    });
}
