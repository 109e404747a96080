package judge;

import java.io.PrintStream;
import java.time.Duration;
import java.time.Instant;

/** Judges claims, prints a line for each, and counts. */
public final class Verdicts {
    /** What makes a claim true or false. */
    public interface Check {
        /** Returns a remark for the reader, possibly empty; throws if the claim is false. */
        String run() throws Exception;
    }

    private final PrintStream out;
    private int passed;
    private int failed;

    public Verdicts(PrintStream out) {
        this.out = out;
    }

    public void judge(String claim, Check check) {
        Instant start = Instant.now();
        String line;
        try {
            String remark = check.run();
            passed++;
            line = "ok    " + claim + (remark.isEmpty() ? "" : ": " + remark);
        } catch (InterruptedException e) {
            throw new IllegalStateException("nobody interrupts the judge", e);
        } catch (Exception | LinkageError | AssertionError e) {
            failed++;
            line = "FAIL  " + claim + ": " + reason(e);
        }
        out.printf("%s (%d ms)%n", line, Duration.between(start, Instant.now()).toMillis());
    }

    /** Prints the totals; the line's form is what tests/run sums. */
    public boolean finish() {
        out.printf("%d passed, %d failed%n", passed, failed);
        return failed == 0 && passed > 0;
    }

    private static String reason(Throwable e) {
        if (e instanceof AssertionError || e.getStackTrace().length == 0) {
            return e.getMessage();
        }
        // Where a claim fails by accident rather than by assertion, the place is half of the explanation.
        return e + " at " + e.getStackTrace()[0];
    }

    public static void require(boolean condition, String format, Object... arguments) {
        if (!condition) {
            throw new AssertionError(String.format(format, arguments));
        }
    }

    public static void requireEqual(Object expected, Object found, String what) {
        require(expected.equals(found), "%s: expected %s, found %s", what, expected, found);
    }
}
