package nodes;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** A process of ours: a node or a notary worker, whose output goes to a file. Ended by its pid, never by name. */
final class Child {
    /** A laden machine is forgiven a lot; a node is up within 20 s on two idle cores. */
    private static final Duration START = Duration.ofSeconds(300);

    private static final Duration STOP = Duration.ofSeconds(30);

    /** How a process ends by SIGKILL, as Java tells it. */
    static final int KILLED = 128 + 9;

    private static final Duration POLL = Duration.ofMillis(50);

    private final String name;
    private final List<String> command;
    private final Path folder;
    private final Path log;
    private final Pattern ready;
    private Process process;
    private long logStart;

    /** `ready` is found in a line of the output as soon as it serves. */
    Child(String name, List<String> command, Path folder, Path log, Pattern ready) {
        this.name = name;
        this.command = command;
        this.folder = folder;
        this.log = log;
        this.ready = ready;
    }

    /** How a Corda process starts; its sub-command and options follow. */
    static List<String> java(Path nodeArguments) {
        String program = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        return List.of(program, "@" + nodeArguments, "net.corda.node.Corda");
    }

    void start() {
        start(Map.of());
    }

    /** Starts it and does not wait; `environment` is added to our own. */
    void start(Map<String, String> environment) {
        if (isAlive()) {
            throw new IllegalStateException(name + " runs already");
        }
        try {
            logStart = Files.exists(log) ? Files.size(log) : 0;
            ProcessBuilder builder = new ProcessBuilder(command).directory(folder.toFile()).redirectErrorStream(true)
                    .redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()));
            builder.environment().putAll(environment);
            process = builder.start();
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    /** Ready, or killed: by a fault that strikes as soon as it has anything to do. */
    void awaitReadyOrKilled() {
        try {
            awaitReady();
        } catch (AssertionError e) {
            if (isAlive() || process.exitValue() != KILLED) {
                throw e;
            }
        }
    }

    void awaitReady() {
        Instant deadline = Instant.now().plus(START);
        while (!ready.matcher(output()).find()) {
            if (!isAlive()) {
                throw new AssertionError(name + " ended with " + process.exitValue() + ": " + tail());
            }
            if (Instant.now().isAfter(deadline)) {
                throw new AssertionError(name + " is not ready after " + START + ": " + tail());
            }
            pause();
        }
    }

    /** What it wrote in this life. */
    String output() {
        try (var file = Files.newByteChannel(log)) {
            file.position(logStart);
            return new String(java.nio.channels.Channels.newInputStream(file).readAllBytes(),
                    java.nio.charset.StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    private String tail() {
        List<String> lines = output().lines().toList();
        return String.join("\n", lines.subList(Math.max(0, lines.size() - 20), lines.size()));
    }

    boolean isAlive() {
        return process != null && process.isAlive();
    }

    long pid() {
        return process.pid();
    }

    /** Asks it to end, and insists after a while. Returns its exit code. */
    int stop() {
        if (process == null) {
            return 0;
        }
        process.destroy();
        try {
            if (!process.waitFor(STOP.toSeconds(), TimeUnit.SECONDS)) {
                return kill();
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
        return process.exitValue();
    }

    /** SIGKILL. */
    int kill() {
        if (process == null) {
            return 0;
        }
        process.destroyForcibly();
        return awaitEnd(STOP);
    }

    int awaitEnd(Duration patience) {
        try {
            if (!process.waitFor(patience.toMillis(), TimeUnit.MILLISECONDS)) {
                throw new AssertionError(name + " still runs after " + patience);
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
        return process.exitValue();
    }

    static void pause() {
        try {
            Thread.sleep(POLL.toMillis());
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        }
    }
}
