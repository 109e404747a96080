//! How a message starts: magic, then sections, one of which may say that the rest is compressed (PROTOCOL a.1).

use std::borrow::Cow;

use crate::wire::error::{Fault, WireError};
use crate::wire::limits::Limits;

/// `corda`, version 1.0.
pub(crate) const MAGIC: &[u8; 7] = b"corda\x01\x00";
/// A section with the data, and nothing after it.
pub(crate) const DATA_AND_STOP: u8 = 0;
/// The same by another number.
const ALT_DATA_AND_STOP: u8 = 1;
/// The rest is compressed; a byte says how.
const ENCODING: u8 = 2;
const ENCODING_DEFLATE: u8 = 0;
const ENCODING_SNAPPY: u8 = 1;

/// Where the data of an uncompressed message starts.
pub(crate) const DATA_OFFSET: usize = MAGIC.len() + 1;

/// Undoes a message's compression, if it has one: the result starts with magic and a data section.
///
/// # Errors
/// [`WireError`] for anything but a Corda message, for DEFLATE (a Corda P2P decoder refuses it too), for compression within
/// compression, and for more than `limits.message_bytes_max` bytes.
pub(crate) fn unpack<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, WireError> {
    let Some([ENCODING, ENCODING_SNAPPY, framed @ ..]) = bytes.strip_prefix(MAGIC) else {
        check_plain(bytes, limits)?;
        return Ok(Cow::Borrowed(bytes));
    };
    check_length(bytes, limits)?;
    let mut plain = MAGIC.to_vec();
    unpack_snappy(framed, limits.message_bytes_max, &mut plain)?;
    check_plain(&plain, limits)?;
    Ok(Cow::Owned(plain))
}

/// Whether the message is uncompressed, so that its data starts at [`DATA_OFFSET`].
pub(crate) fn check_plain(bytes: &[u8], limits: &Limits) -> Result<(), WireError> {
    check_length(bytes, limits)?;
    let sections = bytes.strip_prefix(MAGIC).ok_or_else(|| WireError::new(Fault::UnsupportedScheme, 0))?;
    let fault = match sections {
        [DATA_AND_STOP | ALT_DATA_AND_STOP, ..] => return Ok(()),
        [ENCODING, ENCODING_SNAPPY, ..] => Fault::Compression("still compressed"),
        [ENCODING, ENCODING_DEFLATE, ..] => Fault::Compression("DEFLATE is not accepted"),
        [ENCODING, ..] => Fault::Compression("unknown compression"),
        [_, ..] => Fault::Malformed("unknown section"),
        [] => Fault::Truncated,
    };
    Err(WireError::new(fault, MAGIC.len()))
}

fn check_length(bytes: &[u8], limits: &Limits) -> Result<(), WireError> {
    if bytes.len() > limits.message_bytes_max {
        return Err(WireError::new(Fault::limit("bytes", limits.message_bytes_max as u64), 0));
    }
    Ok(())
}

/// Snappy's framing format: chunks of a type, a three-byte little-endian length and that many bytes.
///
/// Checksums are not verified, as in Corda: signatures and hashes guard what matters.
fn unpack_snappy(framed: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
    /// The format's own bound on one chunk's plain data.
    const CHUNK_MAX: usize = 65_536;
    const CHECKSUM: usize = 4;
    const IDENTIFIER: &[u8] = b"sNaPpY";
    let start = MAGIC.len() + 2;
    let mut rest = framed;
    while !rest.is_empty() {
        let offset = start + framed.len() - rest.len();
        let fail = |what| WireError::new(Fault::Compression(what), offset);
        let Some((&[kind, a, b, c], after)) = rest.split_first_chunk() else {
            return Err(fail("a Snappy chunk is cut off"));
        };
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        let Some((chunk, after)) = after.split_at_checked(length) else {
            return Err(fail("a Snappy chunk is cut off"));
        };
        if rest.len() == framed.len() && kind != 0xff {
            return Err(fail("no Snappy stream identifier"));
        }
        rest = after;
        let data = match kind {
            0xff if chunk == IDENTIFIER => continue,
            0xff => return Err(fail("not a Snappy stream")),
            0x80..=0xfe => continue, // Padding, and what a reader may skip.
            0x00 | 0x01 => chunk.get(CHECKSUM..).ok_or_else(|| fail("a Snappy chunk is cut off"))?,
            _ => return Err(fail("unknown Snappy chunk")),
        };
        let length = match kind {
            0x00 => snap::raw::decompress_len(data).map_err(|_| fail("a Snappy chunk is malformed"))?,
            _ => data.len(),
        };
        if length > CHUNK_MAX {
            return Err(fail("a Snappy chunk is too long"));
        }
        if out.len() + length > bytes_max {
            return Err(WireError::new(Fault::limit("bytes after decompression", bytes_max as u64), offset));
        }
        if kind == 0x00 {
            let plain_start = out.len();
            out.resize(plain_start + length, 0);
            let written = snap::raw::Decoder::new().decompress(data, &mut out[plain_start..]);
            if written != Ok(length) {
                return Err(fail("a Snappy chunk is malformed"));
            }
        } else {
            out.extend_from_slice(data);
        }
    }
    Ok(())
}
