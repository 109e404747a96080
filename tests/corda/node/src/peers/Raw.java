package peers;

import static judge.Verdicts.require;

import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.time.Duration;
import java.util.Arrays;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import net.corda.nodeapi.internal.config.CertificateStore;
import org.apache.qpid.proton.amqp.Symbol;
import org.apache.qpid.proton.amqp.security.SaslInit;
import org.apache.qpid.proton.amqp.security.SaslOutcome;
import org.apache.qpid.proton.amqp.transport.Attach;
import org.apache.qpid.proton.amqp.transport.Begin;
import org.apache.qpid.proton.amqp.transport.Close;
import org.apache.qpid.proton.amqp.transport.Detach;
import org.apache.qpid.proton.amqp.transport.End;
import org.apache.qpid.proton.amqp.transport.ErrorCondition;
import org.apache.qpid.proton.amqp.transport.Open;
import org.apache.qpid.proton.amqp.transport.Role;
import org.apache.qpid.proton.amqp.transport.SenderSettleMode;
import org.apache.qpid.proton.amqp.UnsignedInteger;
import org.apache.qpid.proton.amqp.UnsignedShort;
import org.apache.qpid.proton.codec.AMQPDefinedTypes;
import org.apache.qpid.proton.codec.DecoderImpl;
import org.apache.qpid.proton.codec.EncoderImpl;

/** A connection on which anything can be said; frames are coded by Proton, as a node's are. */
final class Raw implements AutoCloseable {
    static final byte[] SASL_HEADER = {'A', 'M', 'Q', 'P', 3, 1, 0, 0};

    static final byte[] AMQP_HEADER = {'A', 'M', 'Q', 'P', 0, 1, 0, 0};

    private static final byte AMQP_FRAME = 0;

    private static final byte SASL_FRAME = 1;

    private static final int FRAME_HEADER_BYTES = 8;

    private static final int PATIENCE = 30_000;

    private final Socket socket;
    private final DataInputStream in;
    private final DecoderImpl decoder = new DecoderImpl();
    private final EncoderImpl encoder = new EncoderImpl(decoder);

    private Raw(Socket socket) throws IOException {
        this.socket = socket;
        socket.setSoTimeout(PATIENCE);
        in = new DataInputStream(socket.getInputStream());
        AMQPDefinedTypes.registerAllTypes(decoder, encoder);
    }

    static Raw tcp(Pool.Worker worker) throws IOException {
        Socket socket = new Socket();
        socket.connect(new InetSocketAddress(worker.address().getHost(), worker.address().getPort()), PATIENCE);
        return new Raw(socket);
    }

    /** With TLS done. */
    static Raw tls(Pool.Worker worker, CertificateStore keys, CertificateStore trust, String... suites)
            throws IOException, GeneralSecurityException {
        KeyManagerFactory keyManagers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keyManagers.init(internal(keys), keys.getEntryPassword().toCharArray());
        TrustManagerFactory trustManagers =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trustManagers.init(internal(trust));
        SSLContext context = SSLContext.getInstance("TLSv1.2");
        context.init(keyManagers.getKeyManagers(), trustManagers.getTrustManagers(), null);
        Socket tcp = new Socket();
        tcp.connect(new InetSocketAddress(worker.address().getHost(), worker.address().getPort()), PATIENCE);
        SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(
                tcp, worker.address().getHost(), worker.address().getPort(), true);
        if (suites.length > 0) {
            socket.setEnabledCipherSuites(suites);
        }
        socket.setSoTimeout(PATIENCE);
        try {
            socket.startHandshake();
        } catch (IOException e) {
            socket.close();
            throw e;
        }
        return new Raw(socket);
    }

    private static KeyStore internal(CertificateStore store) {
        return store.getValue().getInternal();
    }

    /** With SASL done as a bridge does it. */
    Raw login() throws IOException {
        write(SASL_HEADER);
        SaslInit init = new SaslInit();
        init.setMechanism(Symbol.valueOf("PLAIN"));
        init.setInitialResponse(new org.apache.qpid.proton.amqp.Binary("\0SystemUsers/Peer\0SystemUsers/Peer".getBytes(
                java.nio.charset.StandardCharsets.UTF_8)));
        write(frame(SASL_FRAME, 0, init));
        byte[] header = new byte[SASL_HEADER.length];
        in.readFully(header);
        require(Arrays.equals(SASL_HEADER, header), "no SASL header");
        Object said;
        do {
            said = next();
        } while (!(said instanceof SaslOutcome));
        return this;
    }

    /** With the connection open, and, if wanted, a session begun. */
    Raw open(boolean begin) throws IOException {
        login();
        write(AMQP_HEADER);
        write(frame(openFrame()));
        if (begin) {
            write(frame(beginFrame()));
        }
        byte[] header = new byte[AMQP_HEADER.length];
        in.readFully(header);
        require(next() instanceof Open, "no open");
        require(!begin || next() instanceof Begin, "no begin");
        return this;
    }

    static Open openFrame() {
        Open open = new Open();
        open.setContainerId("CORDA:" + java.util.UUID.randomUUID());
        open.setMaxFrameSize(UnsignedInteger.valueOf(128 * 1024));
        open.setIdleTimeOut(UnsignedInteger.valueOf(5_000));
        return open;
    }

    static Begin beginFrame() {
        Begin begin = new Begin();
        begin.setNextOutgoingId(UnsignedInteger.valueOf(1));
        begin.setIncomingWindow(UnsignedInteger.valueOf(2_048));
        begin.setOutgoingWindow(UnsignedInteger.valueOf(2_048));
        return begin;
    }

    static Attach attachFrame(String address, SenderSettleMode settling) {
        var source = new org.apache.qpid.proton.amqp.messaging.Source();
        source.setAddress(address);
        var target = new org.apache.qpid.proton.amqp.messaging.Target();
        target.setAddress(address);
        Attach attach = new Attach();
        attach.setName(java.util.UUID.randomUUID().toString());
        attach.setHandle(UnsignedInteger.ZERO);
        attach.setRole(Role.SENDER);
        attach.setSndSettleMode(settling);
        attach.setSource(source);
        attach.setTarget(target);
        attach.setInitialDeliveryCount(UnsignedInteger.ZERO);
        return attach;
    }

    static org.apache.qpid.proton.amqp.transport.Transfer transferFrame(int delivery) {
        var transfer = new org.apache.qpid.proton.amqp.transport.Transfer();
        transfer.setHandle(UnsignedInteger.ZERO);
        transfer.setDeliveryId(UnsignedInteger.valueOf(delivery));
        transfer.setDeliveryTag(new org.apache.qpid.proton.amqp.Binary(new byte[] {(byte) delivery}));
        transfer.setMessageFormat(UnsignedInteger.ZERO);
        return transfer;
    }

    byte[] frame(Object performative, byte... payload) {
        return frame(AMQP_FRAME, 0, performative, payload);
    }

    byte[] frame(byte type, int channel, Object performative, byte... payload) {
        ByteBuffer body = ByteBuffer.allocate(4_096);
        encoder.setByteBuffer(body);
        encoder.writeObject(performative);
        int size = FRAME_HEADER_BYTES + body.position() + payload.length;
        ByteBuffer frame = ByteBuffer.allocate(size);
        frame.putInt(size).put((byte) 2).put(type).putShort((short) channel);
        return frame.put(body.flip()).put(payload).array();
    }

    void write(byte... bytes) throws IOException {
        socket.getOutputStream().write(bytes);
        socket.getOutputStream().flush();
    }

    /** The next performative; null when the connection is closed. */
    Object next() throws IOException {
        while (true) {
            int size;
            try {
                size = in.readInt();
            } catch (java.io.EOFException | java.net.SocketException closed) {
                return null;
            }
            byte[] rest = new byte[size - 4];
            in.readFully(rest);
            int start = rest[0] * 4 - 4;
            if (start < rest.length) {
                decoder.setByteBuffer(ByteBuffer.wrap(rest, start, rest.length - start));
                return decoder.readObject();
            }
        }
    }

    /** Reads until the other side says why it ends something; fails if it never does, or ends without a word. */
    ErrorCondition awaitError() throws IOException {
        while (true) {
            Object said = next();
            require(said != null, "the connection was closed without a reason");
            ErrorCondition error = null;
            if (said instanceof Close close) {
                error = close.getError();
            } else if (said instanceof End end) {
                error = end.getError();
            } else if (said instanceof Detach detach) {
                error = detach.getError();
            }
            if (error != null) {
                return error;
            }
        }
    }

    /** Reads until the connection is closed, whatever is said before. */
    void awaitClosed() throws IOException {
        byte[] some = new byte[1_024];
        try {
            while (in.read(some) >= 0) {
                // What is said is of no interest.
            }
        } catch (java.net.SocketTimeoutException e) {
            throw new AssertionError("still open after " + Duration.ofMillis(PATIENCE));
        } catch (IOException reset) {
            // Closed, not gently.
        }
    }

    int port() {
        return socket.getLocalPort();
    }

    @Override
    public void close() {
        try {
            socket.close();
        } catch (IOException e) {
            // It is of no use any more.
        }
    }
}
