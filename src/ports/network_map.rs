//! The network map: who takes part, under which parameters.

use std::sync::Arc;

use crate::domain::network::NetworkView;

/// Knows the network. A view is a snapshot: one request is judged by one view.
pub trait NetworkMap: Send + Sync {
    /// The view in force.
    fn view(&self) -> Arc<NetworkView>;
}

/// A view that never changes.
#[derive(Clone, Debug)]
pub struct FixedNetworkMap(pub Arc<NetworkView>);

impl NetworkMap for FixedNetworkMap {
    fn view(&self) -> Arc<NetworkView> {
        Arc::clone(&self.0)
    }
}
