//! Holders of the service key, behind the `Signer` port. The file key is for development and small networks; tokens are
//! for the rest.

pub mod file_key;
pub mod pkcs11;

pub use file_key::FileKey;
pub use pkcs11::TokenKey;
