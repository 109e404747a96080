//! Every type that is read or written here, as a Corda 4 node describes it in a schema (PROTOCOL j): one table.
//!
//! The true fingerprints are used, so that a receiver takes its own serializer at once, and so that what is written can be
//! compared byte for byte with what a node writes.

/// What a schema says of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TypeInfo {
    /// The Java class, with its parameters.
    pub(crate) name: &'static str,
    /// Its descriptor, after `net.corda:`.
    pub(crate) fingerprint: &'static str,
    pub(crate) form: Form,
}

/// How values of a type are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Fields in wire order, each as `name: type`. `?` marks one that may be null; `*` a type that is an interface, which a
    /// schema names indirectly.
    Composite(&'static [&'static str]),
    List,
    Map,
    Throwable,
    /// A Kotlin object.
    Singleton,
    /// Its constants in ordinal order.
    Enum(&'static [&'static str]),
}

macro_rules! types {
    ($($id:ident: $name:literal, $fingerprint:literal, $form:expr;)*) => {
        /// A type of the table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(crate) enum Type {
            $($id,)*
        }

        impl Type {
            /// Every type, in the order of the table.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$id,)*];

            pub(crate) const fn info(self) -> &'static TypeInfo {
                const TABLE: &[TypeInfo] = {
                    use Form::*;
                    &[$(TypeInfo { name: $name, fingerprint: $fingerprint, form: $form },)*]
                };
                &TABLE[self as usize]
            }
        }
    };
}

impl Type {
    /// The Java class, with its parameters.
    pub(crate) const fn name(self) -> &'static str {
        self.info().name
    }
}

types! {
    StackTraceElements: "java.lang.StackTraceElement[]", "q6kclHN5Jq8QfMlzWdLACg==", List;
    Throwables: "java.lang.Throwable[]", "/2Gt5p0gPwU8wYG6j7zMOA==", List;
    ListOfObject: "java.util.List<java.lang.Object>", "1BLPJgNvsxdvPcbrIQd87g==", List;
    ListOfX509Certificate: "java.util.List<java.security.cert.X509Certificate>", "YRDUtwa/h53JTjkh6Z5v+A==", List;
    ListOfStateRef: "java.util.List<net.corda.core.contracts.StateRef>", "6q8+ZWg4t1Dp0IWJYSc9eg==", List;
    ListOfDigitalSignature: "java.util.List<net.corda.core.crypto.DigitalSignature>", "EsP6FyeXjyCNDitmu9O/Zg==", List;
    ListOfSecureHash: "java.util.List<net.corda.core.crypto.SecureHash>", "cSkzqbskuJ0tzGSo1k+Zvw==", List;
    ListOfTransactionSignature: "java.util.List<net.corda.core.crypto.TransactionSignature>",
        "nuyGEzEXwAWzNgG2TxAa9Q==", List;
    ListOfPartyAndCertificate: "java.util.List<net.corda.core.identity.PartyAndCertificate>",
        "aWe8j2aAdn/K21a2A3CKmA==", List;
    ListOfNotaryInfo: "java.util.List<net.corda.core.node.NotaryInfo>", "Lm6D8R5mkucZHBqmCj6KlA==", List;
    ListOfFilteredComponentGroup: "java.util.List<net.corda.core.transactions.FilteredComponentGroup>",
        "zjA++OSTyVSwzQ63SDZCAA==", List;
    ListOfNetworkHostAndPort: "java.util.List<net.corda.core.utilities.NetworkHostAndPort>", "9xPTMAygl1pGTAXRpGVtiA==",
        List;
    ListOfOpaqueBytes: "java.util.List<net.corda.core.utilities.OpaqueBytes>", "JYpeblY7Crx/a1JihxJC6w==", List;
    MapOfHiddenComponent: "java.util.Map<int, net.corda.core.crypto.SecureHash>", "iw3MqNZ24vUFEjR1a6DAlA==", Map;
    MapOfFilteredComponent: "java.util.Map<int, net.corda.core.transactions.ContractUpgradeFilteredTransaction$FilteredComponent>",
        "j4cp5/H5dZn3KkkQQ7SBwQ==", Map;
    MapOfConsumption: "java.util.Map<net.corda.core.contracts.StateRef, net.corda.core.flows.StateConsumptionDetails>",
        "yWMRiCNXmjmVMvIvcsa8Yw==", Map;
    MapOfObject: "java.util.Map<string, java.lang.Object>", "xvcC7eyjps6IclTUtvEVyw==", Map;
    MapOfPublicKey: "java.util.Map<string, java.security.PublicKey>", "ZZ81CV5YUks1ewSGpHn4TQ==", Map;
    MapOfHashes: "java.util.Map<string, java.util.List<net.corda.core.crypto.SecureHash>>", "Xc2UJChe9k/aA+4vi4Y6ng==",
        Map;
    MapOfOpaqueBytes: "java.util.Map<string, net.corda.core.utilities.OpaqueBytes>", "ks7rpneIbikjh+A6zwcoig==", Map;
    StateRef: "net.corda.core.contracts.StateRef", "JddPXlP6d/8aSE9L9gmcuA==",
        Composite(&["index: int", "txhash: net.corda.core.crypto.SecureHash"]);
    TimeWindow: "net.corda.core.contracts.TimeWindow", "vCzptpAY4Dzmk+ZJ0z0hgg==", Composite(&[]);
    TimeWindowBetween: "net.corda.core.contracts.TimeWindow$Between", "UE7ArWOO49bIdYllmxJMeA==",
        Composite(&["fromTime: java.time.Instant?", "untilTime: java.time.Instant?"]);
    TimeWindowFrom: "net.corda.core.contracts.TimeWindow$From", "Ikcst4SOylGDre+rPDLlOA==",
        Composite(&["fromTime: java.time.Instant?"]);
    TimeWindowUntil: "net.corda.core.contracts.TimeWindow$Until", "uyLuuQzOB5qLb0tbhUr5Vg==",
        Composite(&["untilTime: java.time.Instant?"]);
    DigestService: "net.corda.core.crypto.DigestService", "jQXWYh36L1XKdOx6HkS0pw==",
        Composite(&["hashAlgorithm: string"]);
    DigitalSignature: "net.corda.core.crypto.DigitalSignature", "de8amhp5gGpyflz2aiXnLg==",
        Composite(&["bytes: binary"]);
    DigitalSignatureWithKey: "net.corda.core.crypto.DigitalSignature$WithKey", "gicjWRdOYlZn6Ydnsfi0iw==",
        Composite(&["by: *java.security.PublicKey", "bytes: binary"]);
    PartialMerkleTree: "net.corda.core.crypto.PartialMerkleTree", "QZFO4s8ng/jneOx6aC95/Q==",
        Composite(&["root: net.corda.core.crypto.PartialMerkleTree$PartialTree"]);
    PartialTree: "net.corda.core.crypto.PartialMerkleTree$PartialTree", "qoLLhCY17PZwVNR6EWxfBg==", Composite(&[]);
    TreeIncludedLeaf: "net.corda.core.crypto.PartialMerkleTree$PartialTree$IncludedLeaf", "K4VxVeBs9tyxPmQo1p4adA==",
        Composite(&["hash: net.corda.core.crypto.SecureHash"]);
    TreeLeaf: "net.corda.core.crypto.PartialMerkleTree$PartialTree$Leaf", "b0I7redabq3docLLQ0qZVg==",
        Composite(&["hash: net.corda.core.crypto.SecureHash"]);
    TreeNode: "net.corda.core.crypto.PartialMerkleTree$PartialTree$Node", "NMcQyb/pcGNwncJgzURVlQ==",
        Composite(&[
            "hashAlgorithm: string?",
            "left: net.corda.core.crypto.PartialMerkleTree$PartialTree",
            "right: net.corda.core.crypto.PartialMerkleTree$PartialTree",
        ]);
    SecureHash: "net.corda.core.crypto.SecureHash", "b79PeMBLsHxu2A23yDYRaA==",
        Composite(&["bytes: binary", "offset: int", "size: int"]);
    NamedHash: "net.corda.core.crypto.SecureHash$HASH", "FUVM4VWATjVOSy4TfHkQmA==",
        Composite(&["algorithm: string", "bytes: binary"]);
    Sha256Hash: "net.corda.core.crypto.SecureHash$SHA256", "7YZSUU3tC6YvtX33Klo9Jg==", Composite(&["bytes: binary"]);
    SignableData: "net.corda.core.crypto.SignableData", "MYA9jrnNdlQaaX06oEsmxA==",
        Composite(&[
            "signatureMetadata: net.corda.core.crypto.SignatureMetadata",
            "txId: net.corda.core.crypto.SecureHash",
        ]);
    SignatureMetadata: "net.corda.core.crypto.SignatureMetadata", "IzFt8cRKytsJq3vQ+yjsGg==",
        Composite(&["platformVersion: int", "schemeNumberID: int"]);
    TransactionSignature: "net.corda.core.crypto.TransactionSignature", "JDgI4T6c+qDdhNXY0kFjiQ==",
        Composite(&[
            "by: *java.security.PublicKey",
            "bytes: binary",
            "partialMerkleTree: net.corda.core.crypto.PartialMerkleTree?",
            "signatureMetadata: net.corda.core.crypto.SignatureMetadata",
        ]);
    FlowException: "net.corda.core.flows.FlowException", "AQhZZCOYV62v3m4CgaNSzA==", Throwable;
    FlowInfo: "net.corda.core.flows.FlowInfo", "kQ/HZTcNz47FiUI8gBeWzQ==",
        Composite(&["appName: string", "flowVersion: int"]);
    NotarisationPayload: "net.corda.core.flows.NotarisationPayload", "N7IBHTsN/gt9Xs3F9Q+AYA==",
        Composite(&[
            "requestSignature: net.corda.core.flows.NotarisationRequestSignature",
            "transaction: java.lang.Object",
        ]);
    NotarisationRequest: "net.corda.core.flows.NotarisationRequest", "WUFBbqhlr/Dxu1pTzrMDMQ==",
        Composite(&[
            "statesToConsume: *java.util.List<net.corda.core.contracts.StateRef>",
            "transactionId: net.corda.core.crypto.SecureHash",
        ]);
    NotarisationRequestSignature: "net.corda.core.flows.NotarisationRequestSignature", "OX/UD5B/sbPEzl8v5Pdnhw==",
        Composite(&["digitalSignature: net.corda.core.crypto.DigitalSignature$WithKey", "platformVersion: int"]);
    NotarisationResponse: "net.corda.core.flows.NotarisationResponse", "iaCpvWXyAzgJZJKND0c49w==",
        Composite(&["signatures: *java.util.List<net.corda.core.crypto.TransactionSignature>"]);
    ErrorConflict: "net.corda.core.flows.NotaryError$Conflict", "2hoV7OxZ3ba2uXoLXTaZNg==",
        Composite(&[
            "consumedStates: *java.util.Map<net.corda.core.contracts.StateRef, net.corda.core.flows.StateConsumptionDetails>",
            "txId: net.corda.core.crypto.SecureHash",
        ]);
    ErrorGeneral: "net.corda.core.flows.NotaryError$General", "LsW5ySdQ9Wpv8M4CuRH5lw==",
        Composite(&["cause: java.lang.Throwable"]);
    ErrorRequestSignatureInvalid: "net.corda.core.flows.NotaryError$RequestSignatureInvalid",
        "qZWzFDCIm4A8Z28o1TvPnQ==", Composite(&["cause: java.lang.Throwable"]);
    ErrorTimeWindowInvalid: "net.corda.core.flows.NotaryError$TimeWindowInvalid", "MprU7TVIMU79kk7ig32zcg==",
        Composite(&["currentTime: java.time.Instant", "txTimeWindow: net.corda.core.contracts.TimeWindow"]);
    ErrorTransactionInvalid: "net.corda.core.flows.NotaryError$TransactionInvalid", "ieiWl1FiX76YbXGKL5ttHg==",
        Composite(&["cause: java.lang.Throwable"]);
    NotaryException: "net.corda.core.flows.NotaryException", "4dJL9DXSPykyXq7b+6EVqA==", Throwable;
    StateConsumptionDetails: "net.corda.core.flows.StateConsumptionDetails", "3X+SyRXQR6B/VHAxcNuXog==",
        Composite(&[
            "hashOfTransactionId: net.corda.core.crypto.SecureHash",
            "type: net.corda.core.flows.StateConsumptionDetails$ConsumedStateType",
        ]);
    ConsumedState: "net.corda.core.flows.StateConsumptionDetails$ConsumedStateType", "n0mMXA/bPQMguxSOz1dWUg==",
        Enum(&["INPUT_STATE", "REFERENCE_INPUT_STATE"]);
    WaitTimeUpdate: "net.corda.core.flows.WaitTimeUpdate", "/sE2sCKVj1TpHk+Erv8n0Q==",
        Composite(&["waitTime: java.time.Duration"]);
    CordaX500Name: "net.corda.core.identity.CordaX500Name", "ngdwbt6kRT0l5nn16uf87A==",
        Composite(&[
            "commonName: string?",
            "country: string",
            "locality: string",
            "organisation: string",
            "organisationUnit: string?",
            "state: string?",
        ]);
    Party: "net.corda.core.identity.Party", "H9KOi8agUusgKKi3MEB3xg==",
        Composite(&["name: net.corda.core.identity.CordaX500Name", "owningKey: *java.security.PublicKey"]);
    PartyAndCertificate: "net.corda.core.identity.PartyAndCertificate", "GaPpq/rL9KtfTOQDN9ZCbA==",
        Composite(&["certPath: java.security.cert.CertPath"]);
    DigitalSignatureWithCert: "net.corda.core.internal.DigitalSignatureWithCert", "VTHxvfMXaAOWqzJg4w/APQ==",
        Composite(&[
            "by: java.security.cert.X509Certificate",
            "bytes: binary",
            "parentCertsChain: *java.util.List<java.security.cert.X509Certificate>",
        ]);
    SignedDataWithCert: "net.corda.core.internal.SignedDataWithCert", "e98tEhZoDgCPaw7e/CggMA==",
        Composite(&[
            "raw: net.corda.core.serialization.SerializedBytes<java.lang.Object>",
            "sig: net.corda.core.internal.DigitalSignatureWithCert",
        ]);
    SerializedTelemetry: "net.corda.core.internal.telemetry.SerializedTelemetry", "4HAbIaCuMoflwowB18LeJQ==",
        Composite(&["serializedTelemetryData: *java.util.Map<string, net.corda.core.utilities.OpaqueBytes>"]);
    NetworkParameters: "net.corda.core.node.NetworkParameters", "kZXKDqagj8XgyPGseUES2A==",
        Composite(&[
            "epoch: int",
            "eventHorizon: java.time.Duration",
            "maxMessageSize: int",
            "maxTransactionSize: int",
            "minimumPlatformVersion: int",
            "modifiedTime: java.time.Instant",
            "notaries: *java.util.List<net.corda.core.node.NotaryInfo>",
            "packageOwnership: *java.util.Map<string, java.security.PublicKey>",
            "whitelistedContractImplementations: *java.util.Map<string, java.util.List<net.corda.core.crypto.SecureHash>>",
        ]);
    NodeInfo: "net.corda.core.node.NodeInfo", "ncUcZzvT9YGn0ItdoWW3QQ==",
        Composite(&[
            "addresses: *java.util.List<net.corda.core.utilities.NetworkHostAndPort>",
            "legalIdentitiesAndCerts: *java.util.List<net.corda.core.identity.PartyAndCertificate>",
            "platformVersion: int",
            "serial: long",
        ]);
    NotaryInfo: "net.corda.core.node.NotaryInfo", "LgGAObv9hX+sgfmAA5Q6pA==",
        Composite(&["identity: net.corda.core.identity.Party", "validating: boolean"]);
    SerializedBytes: "net.corda.core.serialization.SerializedBytes", "LY55YUDjxO84OlwSwUzvSA==",
        Composite(&["bytes: binary"]);
    SerializedObject: "net.corda.core.serialization.SerializedBytes<java.lang.Object>", "Da+PVvagr1XTEHgLWYrVsA==",
        Composite(&["bytes: binary"]);
    SerializedNodeInfo: "net.corda.core.serialization.SerializedBytes<net.corda.core.node.NodeInfo>",
        "zB1q2r3GgK9FQwIjfbd1RA==", Composite(&["bytes: binary"]);
    ContractUpgradeFilteredTransaction: "net.corda.core.transactions.ContractUpgradeFilteredTransaction",
        "fV7LLBDcuKE6oZYfcve4Fg==",
        Composite(&[
            "digestService: net.corda.core.crypto.DigestService",
            "hiddenComponents: *java.util.Map<int, net.corda.core.crypto.SecureHash>",
            "visibleComponents: *java.util.Map<int, net.corda.core.transactions.ContractUpgradeFilteredTransaction$FilteredComponent>",
        ]);
    FilteredComponent: "net.corda.core.transactions.ContractUpgradeFilteredTransaction$FilteredComponent",
        "9RwGHLSacfSsgjvM7tUylQ==",
        Composite(&["component: net.corda.core.utilities.OpaqueBytes", "nonce: net.corda.core.crypto.SecureHash"]);
    FilteredComponentGroup: "net.corda.core.transactions.FilteredComponentGroup", "mvTvLSnM0Z9hqqALiXC0oQ==",
        Composite(&[
            "components: *java.util.List<net.corda.core.utilities.OpaqueBytes>",
            "groupIndex: int",
            "nonces: *java.util.List<net.corda.core.crypto.SecureHash>",
            "partialMerkleTree: net.corda.core.crypto.PartialMerkleTree",
        ]);
    FilteredTransaction: "net.corda.core.transactions.FilteredTransaction", "zL+h3rJQFNPbWv4K9sjwlA==",
        Composite(&[
            "digestService: net.corda.core.crypto.DigestService",
            "filteredComponentGroups: *java.util.List<net.corda.core.transactions.FilteredComponentGroup>",
            "groupHashes: *java.util.List<net.corda.core.crypto.SecureHash>",
            "id: net.corda.core.crypto.SecureHash",
        ]);
    NotaryChangeWireTransaction: "net.corda.core.transactions.NotaryChangeWireTransaction", "77VoEhqQoTkByOjB+DGb8A==",
        Composite(&[
            "digestService: net.corda.core.crypto.DigestService",
            "serializedComponents: *java.util.List<net.corda.core.utilities.OpaqueBytes>",
        ]);
    NetworkHostAndPort: "net.corda.core.utilities.NetworkHostAndPort", "IA+5d7+UvO6yts6wDzr86Q==",
        Composite(&["host: string", "port: int"]);
    OpaqueBytes: "net.corda.core.utilities.OpaqueBytes", "pgT0Kc3t/bvnzmgu/nb4Cg==", Composite(&["bytes: binary"]);
    ConfirmSessionMessage: "net.corda.node.services.statemachine.ConfirmSessionMessage", "caQnK5wewgWjgELKSFduUw==",
        Composite(&[
            "initiatedFlowInfo: net.corda.core.flows.FlowInfo",
            "initiatedSessionId: net.corda.node.services.statemachine.SessionId",
        ]);
    DataSessionMessage: "net.corda.node.services.statemachine.DataSessionMessage", "bWJm1abU9OlAOUiCZQ8cbA==",
        Composite(&["payload: net.corda.core.serialization.SerializedBytes<java.lang.Object>"]);
    EndSessionMessage: "net.corda.node.services.statemachine.EndSessionMessage", "LHWHnefq3TuCuQy5M1tU9Q==", Singleton;
    ErrorSessionMessage: "net.corda.node.services.statemachine.ErrorSessionMessage", "+3TXPrWyK0OpisVuZnuYsw==",
        Composite(&["errorId: long", "flowException: net.corda.core.flows.FlowException?"]);
    ExistingSessionMessage: "net.corda.node.services.statemachine.ExistingSessionMessage", "FEWLfjgHA2C9cSmEOhvumA==",
        Composite(&[
            "payload: net.corda.node.services.statemachine.ExistingSessionMessagePayload",
            "recipientSessionId: net.corda.node.services.statemachine.SessionId",
        ]);
    ExistingSessionMessagePayload: "net.corda.node.services.statemachine.ExistingSessionMessagePayload",
        "/mc+Z1nyftj5L186cSNZcg==", Composite(&[]);
    InitialSessionMessage: "net.corda.node.services.statemachine.InitialSessionMessage", "nqUoHu6UNa3m2YA1T7QwbQ==",
        Composite(&[
            "appName: string",
            "firstPayload: net.corda.core.serialization.SerializedBytes<java.lang.Object>?",
            "flowVersion: int",
            "initiationEntropy: long",
            "initiatorFlowClassName: string",
            "initiatorSessionId: net.corda.node.services.statemachine.SessionId",
            "serializedTelemetry: net.corda.core.internal.telemetry.SerializedTelemetry?",
        ]);
    RejectSessionMessage: "net.corda.node.services.statemachine.RejectSessionMessage", "dr1tRcqdNQbH3c6zgr01Wg==",
        Composite(&["errorId: long", "message: string"]);
    SessionId: "net.corda.node.services.statemachine.SessionId", "qYo1K1nmirbtIVWZkYboHw==",
        Composite(&["toLong: long"]);
    SignedNodeInfo: "net.corda.nodeapi.internal.SignedNodeInfo", "ieV9xgdbQxDPSO7D1wCaaA==",
        Composite(&[
            "raw: net.corda.core.serialization.SerializedBytes<net.corda.core.node.NodeInfo>",
            "signatures: *java.util.List<net.corda.core.crypto.DigitalSignature>",
        ]);
    NetworkMap: "net.corda.nodeapi.internal.network.NetworkMap", "hsLP+B5h/iEJtJAmTe3GXw==",
        Composite(&[
            "networkParameterHash: net.corda.core.crypto.SecureHash",
            "nodeInfoHashes: *java.util.List<net.corda.core.crypto.SecureHash>",
            "parametersUpdate: net.corda.nodeapi.internal.network.ParametersUpdate?",
        ]);
    ParametersUpdate: "net.corda.nodeapi.internal.network.ParametersUpdate", "z3ERozcEmHv5Pw+mlPH39g==",
        Composite(&[
            "description: string",
            "newParametersHash: net.corda.core.crypto.SecureHash",
            "updateDeadline: java.time.Instant",
        ]);
}
