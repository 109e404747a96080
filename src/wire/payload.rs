//! `NotarisationPayload`: what a client asks a notary to sign, in the three kinds that a non-validating notary accepts
//! (PROTOCOL d.1).
//!
//! Everything is decoded and bounded here; whether it is true (ids, trees, visibility, signatures) is for `domain` to check.

use std::collections::HashSet;

use super::amqp::{Message, Object, View, Writer};
use super::component::{read_nested, read_opaque};
use super::error::{Fault, WireError};
use super::hash::{
    read_digest_service, read_hash, read_hashes, read_state_ref, read_state_refs, shortened, write_digest_service,
    write_hash,
};
use super::limits::{Limits, NestedBudget};
use super::party::{read_party, read_public_key, write_public_key};
use super::signature::read_signature_bytes;
use super::time::read_time_window;
use super::tree::{TreeBudget, read_tree, write_tree};
use super::types::Type;
use crate::domain::transaction::{
    ComponentGroup, ContractUpgradeTransaction, CoreTransaction, FilteredGroup, FilteredTransaction,
    NotarisationPayload, NotaryChangeTransaction, RequestSignature, VisibleComponents,
};
use crate::domain::{SecureHash, TxId};

/// Reads a `NotarisationPayload`, borrowing its components from `bytes`. `bytes` must be uncompressed: pass them through
/// [`super::unpack`] first.
///
/// # Errors
/// [`WireError`] for anything but exactly one payload within the limits.
pub fn decode_notarisation_payload<'a>(bytes: &'a [u8], limits: &Limits) -> Result<NotarisationPayload<'a>, WireError> {
    let message = Message::read(bytes, limits)?;
    let nested = NestedBudget::new(limits, bytes.len());
    let payload = message.root().object(Type::NotarisationPayload)?;
    Ok(NotarisationPayload {
        transaction: read_transaction(payload.field("transaction")?, &nested)?,
        request_signature: read_request_signature(payload.field("requestSignature")?)?,
    })
}

fn read_request_signature(view: View<'_, '_>) -> Result<RequestSignature, WireError> {
    let object = view.object(Type::NotarisationRequestSignature)?;
    let signature = object.field("digitalSignature")?.object(Type::DigitalSignatureWithKey)?;
    Ok(RequestSignature {
        by: read_public_key(signature.field("by")?)?,
        bytes: read_signature_bytes(signature.field("bytes")?)?,
        platform_version: object.field("platformVersion")?.int()?,
    })
}

fn read_transaction<'a>(view: View<'_, 'a>, nested: &NestedBudget<'_>) -> Result<CoreTransaction<'a>, WireError> {
    match view.as_object() {
        Some(object) if view.is(Type::FilteredTransaction) => {
            read_filtered(object, nested).map(CoreTransaction::Filtered)
        }
        Some(object) if view.is(Type::NotaryChangeWireTransaction) => {
            read_notary_change(object, nested).map(CoreTransaction::NotaryChange)
        }
        Some(object) if view.is(Type::ContractUpgradeFilteredTransaction) => {
            read_contract_upgrade(object, nested).map(CoreTransaction::ContractUpgrade)
        }
        _ => Ok(CoreTransaction::Unsupported {
            type_name: shortened(view.type_name().unwrap_or("a bare value")).to_owned(),
        }),
    }
}

fn read_filtered<'a>(object: Object<'_, 'a>, nested: &NestedBudget<'_>) -> Result<FilteredTransaction<'a>, WireError> {
    let groups = object.field("filteredComponentGroups")?.list()?;
    let trees = TreeBudget::new(nested.limits());
    let groups = groups.map(|group| read_group(group?, &trees)).collect::<Result<Vec<_>, _>>()?;
    Ok(FilteredTransaction {
        id: TxId(read_hash(object.field("id")?)?),
        digest: read_digest_service(&object)?,
        group_hashes: read_hashes(object.field("groupHashes")?)?,
        visible: read_visible(&groups, nested)?,
        groups,
    })
}

fn read_group<'a>(view: View<'_, 'a>, trees: &TreeBudget) -> Result<FilteredGroup<'a>, WireError> {
    let object = view.object(Type::FilteredComponentGroup)?;
    let components = read_opaque_list(object.field("components")?)?;
    let nonces = read_hashes(object.field("nonces")?)?;
    if components.len() != nonces.len() {
        return view.refuse("a group has more or fewer nonces than components");
    }
    Ok(FilteredGroup {
        index: read_number(object.field("groupIndex")?)?,
        components,
        nonces,
        tree: read_tree(object.field("partialMerkleTree")?, trees)?,
    })
}

fn read_opaque_list<'a>(view: View<'_, 'a>) -> Result<Vec<&'a [u8]>, WireError> {
    view.list()?.map(|component| read_opaque(component?)).collect()
}

/// The number of a component or group.
fn read_number(view: View<'_, '_>) -> Result<u32, WireError> {
    u32::try_from(view.int()?).or_else(|_| view.refuse("a component number is negative"))
}

/// More components than this, of a kind that a transaction has once at most, are not even decoded: keys take long to read. The
/// rules need to see two of them to refuse the transaction by name.
const SINGLE_COMPONENTS_MAX: usize = 4;

/// Decodes the components that a notary looks at; what other groups show is left alone.
fn read_visible(groups: &[FilteredGroup<'_>], nested: &NestedBudget<'_>) -> Result<VisibleComponents, WireError> {
    let mut visible = VisibleComponents::default();
    for group in groups {
        let index = group.index;
        let is = |wanted: ComponentGroup| index == wanted as u32;
        for (i, bytes) in group.components.iter().enumerate() {
            let part = format_args!("component {i} of group {index}");
            if is(ComponentGroup::Inputs) {
                visible.inputs.push(read_nested(bytes, nested, part, read_state_ref)?);
            } else if is(ComponentGroup::References) {
                visible.references.push(read_nested(bytes, nested, part, read_state_ref)?);
            } else if is(ComponentGroup::Notary) {
                push_single(&mut visible.notaries, read_nested(bytes, nested, part, read_party)?)?;
            } else if is(ComponentGroup::TimeWindow) {
                push_single(&mut visible.time_windows, read_nested(bytes, nested, part, read_time_window)?)?;
            } else if is(ComponentGroup::Parameters) {
                push_single(&mut visible.parameters, read_nested(bytes, nested, part, read_hash)?)?;
            }
        }
    }
    Ok(visible)
}

fn push_single<T>(components: &mut Vec<T>, component: T) -> Result<(), WireError> {
    if components.len() >= SINGLE_COMPONENTS_MAX {
        let what = "notaries, time windows or parameters hashes of one transaction";
        return Err(WireError::new(Fault::limit(what, SINGLE_COMPONENTS_MAX as u64), 0));
    }
    components.push(component);
    Ok(())
}

fn read_notary_change<'a>(
    object: Object<'_, 'a>,
    nested: &NestedBudget<'_>,
) -> Result<NotaryChangeTransaction<'a>, WireError> {
    let components = read_opaque_list(object.field("serializedComponents")?)?;
    let (inputs, notary, new_notary, parameters) = match components[..] {
        [inputs, notary, new_notary] => (inputs, notary, new_notary, None),
        [inputs, notary, new_notary, parameters] => (inputs, notary, new_notary, Some(parameters)),
        _ => return object.view().refuse("a notary change has neither three nor four components"),
    };
    Ok(NotaryChangeTransaction {
        digest: read_digest_service(&object)?,
        inputs: read_nested(inputs, nested, "component 0", read_state_refs)?,
        notary: read_nested(notary, nested, "component 1", read_party)?,
        new_notary: read_nested(new_notary, nested, "component 2", read_party)?,
        parameters: parameters.map(|bytes| read_nested(bytes, nested, "component 3", read_hash)).transpose()?,
        components,
    })
}

fn read_contract_upgrade<'a>(
    object: Object<'_, 'a>,
    nested: &NestedBudget<'_>,
) -> Result<ContractUpgradeTransaction<'a>, WireError> {
    let mut seen = HashSet::new();
    let visible = read_numbered(object.field("visibleComponents")?, &mut seen, |value| {
        let component = value.object(Type::FilteredComponent)?;
        Ok((read_opaque(component.field("component")?)?, read_hash(component.field("nonce")?)?))
    })?;
    let hidden = read_numbered(object.field("hiddenComponents")?, &mut seen, |value| read_hash(value))?;
    let visible: Vec<(u32, &[u8], SecureHash)> =
        visible.into_iter().map(|(number, (bytes, nonce))| (number, bytes, nonce)).collect();
    let component = |wanted: u32| visible.iter().find(|(number, ..)| *number == wanted).map(|(_, bytes, _)| *bytes);
    let (Some(inputs), Some(notary)) = (component(0), component(1)) else {
        return object.view().refuse("a contract upgrade hides its inputs or its notary");
    };
    Ok(ContractUpgradeTransaction {
        digest: read_digest_service(&object)?,
        inputs: read_nested(inputs, nested, "component 0", read_state_refs)?,
        notary: read_nested(notary, nested, "component 1", read_party)?,
        parameters: component(5).map(|bytes| read_nested(bytes, nested, "component 5", read_hash)).transpose()?,
        visible,
        hidden,
    })
}

/// Reads a map from component numbers, in ascending order. A number in `seen` is refused: two components under one number would
/// make two ids of one transaction.
fn read_numbered<'m, 'a, T>(
    view: View<'m, 'a>,
    seen: &mut HashSet<u32>,
    mut read: impl FnMut(View<'m, 'a>) -> Result<T, WireError>,
) -> Result<Vec<(u32, T)>, WireError> {
    let mut entries = Vec::new();
    let mut parts = view.map()?;
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let key = key?;
        let number = read_number(key)?;
        if !seen.insert(number) {
            return key.refuse("a component number occurs twice");
        }
        entries.push((number, read(value?)?));
    }
    entries.sort_by_key(|(number, _)| *number);
    Ok(entries)
}

/// Serializes a `NotarisationPayload` as a node does: components stand as `SerializedBytes`, and a hash that occurs again is a
/// reference. `None` for a transaction of a kind that was not kept.
pub fn encode_notarisation_payload(payload: &NotarisationPayload<'_>) -> Option<Vec<u8>> {
    if let CoreTransaction::Unsupported { .. } = payload.transaction {
        return None;
    }
    Some(Writer::message_sharing_hashes(|w| {
        w.composite(Type::NotarisationPayload, |w| {
            write_request_signature(w, &payload.request_signature);
            match &payload.transaction {
                CoreTransaction::Filtered(tx) => write_filtered(w, tx),
                CoreTransaction::NotaryChange(tx) => write_notary_change(w, tx),
                CoreTransaction::ContractUpgrade(tx) => write_contract_upgrade(w, tx),
                CoreTransaction::Unsupported { .. } => unreachable!("returned above"),
            }
        });
    }))
}

fn write_request_signature(w: &mut Writer, signature: &RequestSignature) {
    w.composite(Type::NotarisationRequestSignature, |w| {
        w.composite(Type::DigitalSignatureWithKey, |w| {
            write_public_key(w, &signature.by);
            w.binary(&signature.bytes);
        });
        w.int(signature.platform_version);
    });
}

fn write_filtered(w: &mut Writer, tx: &FilteredTransaction<'_>) {
    w.composite(Type::FilteredTransaction, |w| {
        write_digest_service(w, tx.digest);
        w.list_of(Type::ListOfFilteredComponentGroup, |w| tx.groups.iter().for_each(|group| write_group(w, group)));
        w.list_of(Type::ListOfSecureHash, |w| tx.group_hashes.iter().for_each(|hash| write_hash(w, hash)));
        write_hash(w, &tx.id.0);
    });
}

fn write_group(w: &mut Writer, group: &FilteredGroup<'_>) {
    w.composite(Type::FilteredComponentGroup, |w| {
        write_components(w, &group.components);
        w.int(group.index as i32);
        w.list_of(Type::ListOfSecureHash, |w| group.nonces.iter().for_each(|nonce| write_hash(w, nonce)));
        write_tree(w, &group.tree);
    });
}

fn write_components(w: &mut Writer, components: &[&[u8]]) {
    w.list_of(Type::ListOfOpaqueBytes, |w| components.iter().for_each(|bytes| write_serialized(w, bytes)));
}

fn write_serialized(w: &mut Writer, bytes: &[u8]) {
    w.composite(Type::SerializedBytes, |w| w.binary(bytes));
}

fn write_notary_change(w: &mut Writer, tx: &NotaryChangeTransaction<'_>) {
    w.composite(Type::NotaryChangeWireTransaction, |w| {
        write_digest_service(w, tx.digest);
        write_components(w, &tx.components);
    });
}

fn write_contract_upgrade(w: &mut Writer, tx: &ContractUpgradeTransaction<'_>) {
    w.composite(Type::ContractUpgradeFilteredTransaction, |w| {
        write_digest_service(w, tx.digest);
        w.map_of(Type::MapOfHiddenComponent, |w| {
            for (number, hash) in &tx.hidden {
                w.int(*number as i32);
                write_hash(w, hash);
            }
        });
        w.map_of(Type::MapOfFilteredComponent, |w| {
            for (number, bytes, nonce) in &tx.visible {
                w.int(*number as i32);
                w.composite(Type::FilteredComponent, |w| {
                    write_serialized(w, bytes);
                    write_hash(w, nonce);
                });
            }
        });
    });
}
