//! What the worker and the keeper of a token say to each other: JSON, each frame after its length in four bytes, over a pair of
//! connected sockets. Both ends are the same program, so the form may change with any release.

use std::fmt;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::profile::Profile;

/// The longest frame, in bytes. The longest real one signs some hundred bytes, or carries a profile.
pub(super) const FRAME_LEN_MAX: usize = 64 * 1024;
/// Bytes of the length before each frame (little-endian).
const HEAD_LEN: usize = 4;

/// From the worker.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Ask {
    /// The first frame, once.
    Open(Box<Open>),
    /// Sign a message; at most [`Opened::sessions`] at once.
    Sign { id: u64, message: Bytes },
}

/// Which token and key to open, and how.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Open {
    pub(super) module: String,
    pub(super) token: String,
    pub(super) key: KeyPlace,
    pub(super) sessions: usize,
    pub(super) profile: Profile,
    pub(super) pin: Option<Pin>,
}

/// Where on a token a key lies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct KeyPlace {
    /// `CKA_LABEL`; empty if the id alone names it.
    pub label: String,
    /// `CKA_ID`; empty if the label alone names it.
    pub id: Vec<u8>,
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.label.as_str(), self.id.as_slice()) {
            (label, []) => write!(f, "label {label:?}"),
            ("", id) => write!(f, "id {}", hex::encode(id)),
            (label, id) => write!(f, "label {label:?}, id {}", hex::encode(id)),
        }
    }
}

/// From the keeper.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum Tell {
    /// The answer to [`Ask::Open`]: logged in, all sessions ready.
    Opened(Box<Opened>),
    /// The other answer to it; the keeper ends.
    Refused(Refusal),
    /// A signature in the form of the key's scheme.
    Signed { id: u64, signature: Bytes },
    /// No signature. `harmless`: the token works, by what its profile says of the return code.
    Failed { id: u64, reason: String, harmless: bool },
}

/// An open token.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Opened {
    /// The public half of the key, as the token tells it (SubjectPublicKeyInfo).
    pub(super) public_key: Bytes,
    /// Sessions that sign.
    pub(super) sessions: usize,
    pub(super) facts: Facts,
}

/// What a token says of itself and of the key.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(super) struct Facts {
    /// The module: its maker, description and version.
    pub(super) module: String,
    /// The token: its maker, model and serial number.
    pub(super) token: String,
    /// A wrong PIN was entered since the last right one.
    pub(super) pin_count_low: bool,
    /// Most sessions that the token allows, where it says.
    pub(super) sessions_max: Option<u64>,
    /// Where the public half was found.
    pub(super) public_from: String,
    /// Boolean attributes of the private key that the token tells: `CKA_EXTRACTABLE` and others.
    pub(super) attributes: Vec<(String, bool)>,
}

/// Why a token is not open, by what is to be done.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Refusal {
    /// Token or key is not there, or does not answer: look again later.
    Absent(String),
    /// The token refused the PIN just now. It must not be tried again.
    Pin(String),
    /// The PIN was not tried: the token is locked, or one wrong PIN would lock it.
    PinNotTried(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Absent(reason) | Self::Pin(reason) | Self::PinNotTried(reason)) = self;
        f.write_str(reason)
    }
}

/// Bytes, as hex.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A PIN: wiped when dropped, never printed.
#[derive(Clone)]
pub(super) struct Pin(pub(super) Zeroizing<String>);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(...)")
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A frame with its length; wiped when dropped, since it may hold a PIN.
pub(super) fn encode(frame: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Of full size from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_LEN + FRAME_LEN_MAX));
    bytes.extend([0; HEAD_LEN]);
    serde_json::to_writer(&mut *bytes, frame)?;
    let len = bytes.len() - HEAD_LEN;
    if len > FRAME_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {len} bytes")));
    }
    bytes[..HEAD_LEN].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// Takes the first frame from what has been received, if it is complete.
pub(super) fn take<T: DeserializeOwned>(received: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = received.first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let end = HEAD_LEN + length(*head)?;
    if received.len() < end {
        return Ok(None);
    }
    let frame = serde_json::from_slice(&received[HEAD_LEN..end])?;
    received.drain(..end);
    Ok(Some(frame))
}

/// Waits for a frame; `None` if the other end is gone.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; HEAD_LEN];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut frame = Zeroizing::new(vec![0; length(head)?]);
    from.read_exact(&mut frame)?;
    Ok(Some(serde_json::from_slice(&frame)?))
}

pub(super) fn write(to: &mut impl Write, frame: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(frame)?)
}

fn length(head: [u8; HEAD_LEN]) -> io::Result<usize> {
    match u32::from_le_bytes(head) as usize {
        len if len <= FRAME_LEN_MAX => Ok(len),
        len => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(id: u64) -> Ask {
        Ask::Sign { id, message: Bytes(vec![0, 0xff, id as u8]) }
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut() {
        let bytes: Vec<u8> = (0..3).flat_map(|id| encode(&sign(id)).expect("short").to_vec()).collect();
        let (mut received, mut ids) = (Vec::new(), Vec::new());
        for byte in &bytes {
            received.push(*byte);
            while let Some(Ask::Sign { id, message }) = take(&mut received).expect("frames") {
                assert_eq!(message, Bytes(vec![0, 0xff, id as u8]));
                ids.push(id);
            }
        }
        assert_eq!((ids, received.len()), (vec![0, 1, 2], 0));

        let mut from = bytes.as_slice();
        for expected in 0..3 {
            assert!(matches!(read(&mut from), Ok(Some(Ask::Sign { id, .. })) if id == expected));
        }
        assert!(read::<Ask>(&mut from).expect("the end").is_none());
    }

    #[test]
    fn frames_that_are_too_long_or_senseless_are_refused() {
        assert!(encode(&Ask::Sign { id: 1, message: Bytes(vec![0; FRAME_LEN_MAX]) }).is_err());
        let mut long = (FRAME_LEN_MAX as u32 + 1).to_le_bytes().to_vec();
        assert!(take::<Ask>(&mut long.clone()).is_err() && read::<Ask>(&mut long.as_slice()).is_err());
        long = [&2u32.to_le_bytes()[..], b"{}"].concat();
        assert!(take::<Ask>(&mut long.clone()).is_err() && read::<Ask>(&mut long.as_slice()).is_err());
    }

    #[test]
    fn a_pin_travels_but_is_not_printed() {
        let pin = Pin(Zeroizing::new("271828".into()));
        assert!(!format!("{pin:?}").contains("271828"));
        let mut bytes = encode(&pin).expect("short").to_vec();
        let arrived: Pin = take(&mut bytes).expect("a frame").expect("whole");
        assert_eq!(*arrived.0, "271828");
    }
}
