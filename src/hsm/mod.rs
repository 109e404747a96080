//! Holders of the service key, behind the `Signer` port. The file key is for development and small networks; tokens and
//! hardware come beside it.

pub mod file_key;

pub use file_key::FileKey;
