//! The table of Corda's types as bytes: written as they are, and recognised without being taken apart.

use std::sync::LazyLock;

use super::schema::{DESCRIPTOR_PREFIX, Field, is_primitive};
use super::writer::Writer;
use crate::wire::types::{Form, Type};

/// A type of the table, prepared once per process.
pub(super) struct Known {
    /// `net.corda:` and the fingerprint.
    pub(super) descriptor: String,
    /// `00`, then the descriptor: what every value of the type starts with.
    pub(super) head: Vec<u8>,
    /// What a schema says of it.
    pub(super) notation: Vec<u8>,
    /// Types that a schema lists directly after this one, unless it has them.
    pub(super) needs: Vec<Type>,
    /// The fields of a composite type.
    pub(super) fields: Vec<Field<'static>>,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| Type::ALL.iter().map(|ty| prepare(*ty)).collect());

/// Types by the length of their notations; real lengths lie close together, so the table is small.
static BY_NOTATION_LENGTH: LazyLock<Vec<Vec<Type>>> = LazyLock::new(|| {
    let longest = KNOWN.iter().map(|known| known.notation.len()).max().unwrap_or(0);
    let mut by_length = vec![Vec::new(); longest + 1];
    for ty in Type::ALL {
        by_length[known(*ty).notation.len()].push(*ty);
    }
    by_length
});

#[inline]
pub(super) fn known(ty: Type) -> &'static Known {
    &KNOWN[ty as usize]
}

/// The type that a node describes with exactly these bytes.
#[inline]
pub(super) fn by_notation(bytes: &[u8]) -> Option<Type> {
    let candidates = BY_NOTATION_LENGTH.get(bytes.len())?;
    candidates.iter().copied().find(|ty| known(*ty).notation == bytes)
}

fn prepare(ty: Type) -> Known {
    let info = ty.info();
    let descriptor = format!("{DESCRIPTOR_PREFIX}{}", info.fingerprint);
    let mut head = vec![0x00];
    head.extend(Writer::fragment(|w| w.symbol(&descriptor)));
    let fields: Vec<_> = match info.form {
        Form::Composite(fields) => fields.iter().map(|field| FieldText::of(field)).collect(),
        _ => Vec::new(),
    };
    Known {
        notation: encode_notation(ty, &descriptor, &fields),
        needs: needs(ty, &fields),
        fields: fields
            .iter()
            .map(|field| Field { name: field.name, is_object: field.is_interface || !is_primitive(field.type_name) })
            .collect(),
        descriptor,
        head,
    }
}

fn encode_notation(ty: Type, descriptor: &str, fields: &[FieldText]) -> Vec<u8> {
    let info = ty.info();
    let write_descriptor = |w: &mut Writer| {
        w.framework(3, |w| {
            w.symbol(descriptor);
            w.null();
        });
    };
    let nothing = |w: &mut Writer| w.list(|_| {});
    let restricted = |label: Option<&str>, source: &str, constants: &[&str]| {
        Writer::fragment(|w| {
            w.framework(6, |w| {
                w.string(info.name);
                w.optional(label, Writer::string);
                nothing(w);
                w.string(source);
                write_descriptor(w);
                w.list(|w| {
                    for (ordinal, constant) in constants.iter().enumerate() {
                        w.framework(7, |w| {
                            w.string(constant);
                            w.string(&ordinal.to_string());
                        });
                    }
                });
            });
        })
    };
    match info.form {
        Form::List => restricted(None, "list", &[]),
        Form::Map => restricted(None, "map", &[]),
        Form::Throwable => restricted(None, "java.lang.Throwable", &[]),
        Form::Singleton => restricted(Some("Singleton"), "boolean", &[]),
        Form::Enum(constants) => restricted(None, "list", constants),
        Form::Composite(_) => Writer::fragment(|w| {
            w.framework(5, |w| {
                w.string(info.name);
                w.null();
                nothing(w);
                write_descriptor(w);
                w.list(|w| fields.iter().for_each(|field| write_field(w, field)));
            });
        }),
    }
}

/// A field of the table, taken apart.
struct FieldText {
    name: &'static str,
    type_name: &'static str,
    is_interface: bool,
    is_mandatory: bool,
}

impl FieldText {
    fn of(text: &'static str) -> Self {
        let (name, rest) = text.split_once(": ").expect("the table writes `name: type`");
        let (rest, is_mandatory) = rest.strip_suffix('?').map_or((rest, true), |rest| (rest, false));
        let (type_name, is_interface) = rest.strip_prefix('*').map_or((rest, false), |rest| (rest, true));
        Self { name, type_name, is_interface, is_mandatory }
    }
}

fn write_field(w: &mut Writer, field: &FieldText) {
    w.framework(4, |w| {
        w.string(field.name);
        w.string(if field.is_interface { "*" } else { field.type_name });
        w.list(|w| {
            if field.is_interface {
                w.string(field.type_name);
            }
        });
        let default = match field.type_name {
            "int" | "long" if field.is_mandatory => Some("0"),
            "boolean" if field.is_mandatory => Some("false"),
            _ => None,
        };
        w.optional(default, Writer::string);
        w.null();
        w.boolean(field.is_mandatory);
        w.boolean(false);
    });
}

/// The types that a schema lists after `ty` because its values may hold them: its fields' types, or its type parameters.
fn needs(ty: Type, fields: &[FieldText]) -> Vec<Type> {
    let by_name = |name: &str| Type::ALL.iter().copied().find(|other| other.name() == name);
    match ty.info().form {
        Form::Composite(_) => fields.iter().filter_map(|field| by_name(field.type_name)).collect(),
        Form::List | Form::Map => {
            let inner = ty.name().split_once('<').and_then(|(_, rest)| rest.strip_suffix('>')).unwrap_or_default();
            // A key has no parameters of its own, so the first comma parts key and value.
            inner.splitn(2, ", ").filter_map(by_name).collect()
        }
        _ => Vec::new(),
    }
}
