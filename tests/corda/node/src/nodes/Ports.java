package nodes;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.Random;

/** Free ports of the loopback address. */
public final class Ports {
    /** Below the range that Linux hands out to connections, so that none takes a port before its node does. */
    private static final int FIRST = 20_000;

    private static final int LAST = 32_000;

    private Ports() {}

    /** The first of `count` ports in a row that are all free now. */
    public static int free(int count) {
        Random random = new Random();
        for (int tries = 0; tries < 1_000; tries++) {
            int first = FIRST + random.nextInt(LAST - FIRST - count);
            boolean all = true;
            for (int port = first; all && port < first + count; port++) {
                all = isFree(port);
            }
            if (all) {
                return first;
            }
        }
        throw new IllegalStateException("no " + count + " free ports in a row from " + FIRST + " to " + LAST);
    }

    static boolean isFree(int port) {
        try (ServerSocket socket = new ServerSocket()) {
            socket.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
            return true;
        } catch (IOException taken) {
            return false;
        }
    }
}
