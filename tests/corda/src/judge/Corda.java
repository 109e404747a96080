package judge;

import java.io.NotSerializableException;
import java.util.List;
import net.corda.core.serialization.SerializationContext;
import net.corda.core.serialization.SerializationFactory;
import net.corda.core.serialization.SerializedBytes;
import net.corda.core.serialization.internal.SerializationEnvironment;
import net.corda.core.serialization.internal.SerializationEnvironmentKt;
import net.corda.core.utilities.ByteSequence;
import net.corda.core.utilities.OpaqueBytes;
import net.corda.nodeapi.internal.serialization.amqp.AMQPServerSerializationScheme;
import net.corda.serialization.internal.SerializationFactoryImpl;
import net.corda.serialization.internal.SharedContexts;

/** Corda's own serialization, set up as in a node, in the context of messages between nodes. */
public final class Corda {
    private static final SerializationContext P2P = SharedContexts.getAMQP_P2P_CONTEXT();

    private Corda() {}

    /** Must run once, before any other use of Corda's classes: they look the environment up in a global. */
    public static void start() {
        SerializationFactoryImpl factory = new SerializationFactoryImpl();
        factory.registerScheme(new AMQPServerSerializationScheme(List.of()));
        SerializationEnvironmentKt.setNodeSerializationEnv(
                SerializationEnvironment.Companion.with(factory, P2P, P2P, null, null, null, null));
    }

    public static <T> SerializedBytes<T> serialize(T value) {
        return factory().serialize(value, P2P);
    }

    /** Decodes as a node that receives `bytes` does, with Corda's white list. */
    public static <T> T deserialize(Class<T> type, byte[] bytes) throws NotSerializableException {
        return factory().deserialize(ByteSequence.of(bytes), type, P2P);
    }

    public static <T> T deserialize(Class<T> type, OpaqueBytes bytes) throws NotSerializableException {
        return factory().deserialize(bytes, type, P2P);
    }

    private static SerializationFactory factory() {
        return SerializationFactory.Companion.getDefaultFactory();
    }
}
