//! Whole headers and frames from a stream, for handshakes: they read exactly what they need, so nothing is left in a buffer
//! when the conversation proper starts.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{self, FrameError, FrameType};

/// Why a handshake could not read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The next eight bytes.
pub(crate) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; 8], ReadError> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    Ok(header)
}

/// The body of the next frame that is not empty.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    kind: FrameType,
    size_max: usize,
) -> Result<Vec<u8>, ReadError> {
    loop {
        let mut bytes = vec![0; 4];
        stream.read_exact(&mut bytes).await?;
        // Whole, since four bytes are there.
        let size = frame::size(&bytes, size_max)?.unwrap_or(frame::HEADER_LEN);
        bytes.resize(size, 0);
        stream.read_exact(&mut bytes[4..]).await?;
        let body_len = frame::parse(&bytes, kind).map_err(FrameError::from)?.body.len();
        if body_len > 0 {
            // Moved, not copied: there may be a password in it, and whoever wipes it should wipe all of it.
            bytes.drain(..size - body_len);
            return Ok(bytes);
        }
    }
}
