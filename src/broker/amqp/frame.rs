//! Frames (specification 2.3): a size, a data offset, a type, a channel, a body.

use super::codec::DecodeError;

/// Bytes before the body of a frame as we send it.
pub(crate) const HEADER_LEN: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameType {
    Amqp,
    Sasl,
}

impl FrameType {
    const fn code(self) -> u8 {
        match self {
            Self::Amqp => 0,
            Self::Sasl => 1,
        }
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Larger than was agreed.
    #[error("a frame of {size} bytes where {max} are allowed")]
    TooLarge { size: usize, max: usize },
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// One frame within a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame<'a> {
    pub channel: u16,
    /// Empty in a frame that only says "alive".
    pub body: &'a [u8],
}

/// The size of the frame that `bytes` starts with, or `None` while its header is incomplete. The size is checked before any
/// of the body is waited for.
///
/// # Errors
/// If it is too large, or smaller than its own header.
pub(crate) fn size(bytes: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(size) = bytes.first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size) as usize;
    if size < HEADER_LEN {
        return Err(DecodeError("a frame smaller than its own header").into());
    }
    if size > max {
        return Err(FrameError::TooLarge { size, max });
    }
    Ok(Some(size))
}

/// Splits one whole frame, as long as [`size`] said.
pub(crate) fn parse(bytes: &[u8], expected: FrameType) -> Result<Frame<'_>, DecodeError> {
    let header = bytes.first_chunk::<HEADER_LEN>().ok_or(DecodeError("truncated frame"))?;
    let [_, _, _, _, offset, kind, high, low] = *header;
    let offset = usize::from(offset) * 4;
    if offset < HEADER_LEN || offset > bytes.len() {
        return Err(DecodeError("the data offset lies outside the frame"));
    }
    if kind != expected.code() {
        return Err(DecodeError("unexpected frame type"));
    }
    Ok(Frame { channel: u16::from_be_bytes([high, low]), body: &bytes[offset..] })
}

/// Appends a frame whose body `write` writes.
pub(crate) fn write(out: &mut Vec<u8>, kind: FrameType, channel: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, 2, kind.code()]);
    out.extend_from_slice(&channel.to_be_bytes());
    write(out);
    let size = u32::try_from(out.len() - start).expect("frames are limited far below 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Bytes on their way to a socket.
#[derive(Default, Debug)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// How many bytes were written before those.
    before: u64,
}

impl Output {
    /// Capacity that is kept for the next frames once all is written; what a burst took beyond it is given back.
    const KEPT_CAPACITY: usize = 64 * 1024;

    /// Where to append frames.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is not written yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that `count` bytes more were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        debug_assert!(self.written <= self.bytes.len());
        let all = self.written == self.bytes.len();
        // A peer that always leaves a little unread must not make this grow.
        if all || self.written >= Self::KEPT_CAPACITY {
            self.bytes.drain(..self.written);
            self.before += self.written as u64;
            self.written = 0;
        }
        if all {
            self.bytes.shrink_to(Self::KEPT_CAPACITY);
        }
    }

    /// The position after everything appended so far, counted from the first byte ever.
    pub(crate) fn end(&self) -> u64 {
        self.before + self.bytes.len() as u64
    }

    /// The position after everything written so far.
    pub(crate) fn written(&self) -> u64 {
        self.before + self.written as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_round_trips() {
        let mut bytes = Vec::new();
        write(&mut bytes, FrameType::Amqp, 513, |out| out.extend_from_slice(b"body"));
        assert_eq!(size(&bytes, 512), Ok(Some(12)));
        assert_eq!(parse(&bytes, FrameType::Amqp), Ok(Frame { channel: 513, body: b"body" }));
        assert!(parse(&bytes, FrameType::Sasl).is_err());
    }

    #[test]
    fn sizes_are_judged_before_the_body_is_there() {
        assert_eq!(size(&[0, 0, 2], 512), Ok(None));
        assert_eq!(size(&[0, 0, 2, 1], 512), Err(FrameError::TooLarge { size: 513, max: 512 }));
        for small in 0..8 {
            assert!(matches!(size(&[0, 0, 0, small], 512), Err(FrameError::Malformed(_))));
        }
    }

    #[test]
    fn the_data_offset_stays_inside() {
        for (offset, good) in [(0, false), (1, false), (2, true), (3, true), (4, false), (255, false)] {
            let bytes = [0, 0, 0, 12, offset, 0, 0, 0, 1, 2, 3, 4];
            assert_eq!(parse(&bytes, FrameType::Amqp).is_ok(), good, "{offset}");
        }
    }

    #[test]
    fn output_counts_positions_across_flushes() {
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"abc");
        output.advance(2);
        assert_eq!((output.pending(), output.end(), output.written()), (&b"c"[..], 3, 2));
        output.advance(1);
        output.buffer().extend_from_slice(b"de");
        assert_eq!((output.pending(), output.end(), output.written()), (&b"de"[..], 5, 3));
        output.buffer().extend_from_slice(&[b'f'; Output::KEPT_CAPACITY]);
        output.advance(Output::KEPT_CAPACITY);
        assert_eq!((output.pending(), output.bytes.len()), (&b"ff"[..], 2), "what is written is not kept");
        assert_eq!(output.end() - output.written(), 2);
    }
}
