//! Who takes part, and who says so: certificates, node infos, network parameters (PROTOCOL i).
//!
//! `LiveNetworkMap` is the adapter of the `NetworkMap` port that follows its documents, `FileNetworkMap` one that took a look once.
//! Both stand on `library`, the documents of several places, and that on `shelf`, which reads only what changed. `development`
//! makes a whole network to throw away. Nothing from here reaches the rules unless it was verified up to the trust root.

mod authorities;
pub mod certificate;
pub mod corda_dev_ca;
pub mod development;
mod expiry;
mod files;
mod http;
pub(crate) mod issue;
mod library;
mod live;
mod material;
pub mod nodes;
mod path;
mod poll;
mod publication;
pub mod registration;
mod shelf;

pub use authorities::Rules;
pub use certificate::{Certificate, CertificateError, Role};
pub use expiry::{chain_expiry, parameters_expiry, pem_expiry};
pub use files::{
    FileError, FileNetworkMap, FileProblem, HISTORIC_PARAMETERS, LoadError, NODE_INFO_PREFIX, NODE_INFOS, PARAMETERS,
    PARAMETERS_UPDATE, ROOT, read_root, read_trust_store, replace,
};
pub use http::{HttpError, HttpMap, MapOptions};
pub use issue::IssueError;
pub use library::{Library, Sources};
pub use live::{LiveNetworkMap, Snapshot};
pub use material::{
    IDENTITIES_MAX, Identity, MaterialError, Node, verify_network_map, verify_node_info, verify_parameters,
};
pub use path::{PATH_LEN_MAX, PathError, verify_path};
pub use poll::{Cache, PollError, Poller, Polling, jittered};
pub use publication::{Description, PublicationError};
