package agent;

import static org.objectweb.asm.Opcodes.ACC_STATIC;
import static org.objectweb.asm.Opcodes.ASM7;
import static org.objectweb.asm.Opcodes.BIPUSH;
import static org.objectweb.asm.Opcodes.DUP;
import static org.objectweb.asm.Opcodes.INVOKESPECIAL;
import static org.objectweb.asm.Opcodes.NEW;
import static org.objectweb.asm.Opcodes.PUTSTATIC;
import static org.objectweb.asm.Opcodes.RETURN;

import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.security.ProtectionDomain;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.MethodVisitor;

/**
 * Lets Corda 4.10, built for Java 8, start on Java 17. Nothing of what it does for notarisation is touched. Listed
 * before Quasar's agent, because Quasar's own class reader is changed.
 */
public final class Java17 implements ClassFileTransformer {
    private static final String QUASAR_READER = "co/paralleluniverse/asm/ClassReader";
    private static final String DATA_SOURCES = "net/corda/node/internal/DataSourceFactory";

    private Java17() {}

    public static void premain(String options, Instrumentation instrumentation) {
        // The node refuses to start otherwise. The launcher sets this property after those of the command line.
        System.setProperty("java.specification.version", "11");
        instrumentation.addTransformer(new Java17());
    }

    @Override
    public byte[] transform(
            ClassLoader loader, String name, Class<?> redefined, ProtectionDomain domain, byte[] before) {
        if (QUASAR_READER.equals(name)) {
            return rewrite(before, Java17::readingNewerClasses);
        }
        if (DATA_SOURCES.equals(name)) {
            return rewrite(before, Java17::leavingFinalFieldsAlone);
        }
        return null;
    }

    private interface Change {
        ClassVisitor over(ClassWriter writer);
    }

    private static byte[] rewrite(byte[] before, Change change) {
        ClassReader reader = new ClassReader(before);
        ClassWriter writer = new ClassWriter(reader, 0);
        reader.accept(change.over(writer), 0);
        return writer.toByteArray();
    }

    /** Quasar looks into classes of the JDK, whose version, 61, is above the 52 that its reader takes. */
    private static ClassVisitor readingNewerClasses(ClassWriter writer) {
        return new ClassVisitor(ASM7, writer) {
            @Override
            public MethodVisitor visitMethod(int access, String name, String type, String generic, String[] thrown) {
                MethodVisitor method = super.visitMethod(access, name, type, generic, thrown);
                if (!name.equals("<init>")) {
                    return method;
                }
                return new MethodVisitor(ASM7, method) {
                    @Override
                    public void visitIntInsn(int operation, int operand) {
                        boolean limit = operation == BIPUSH && operand == 52;
                        super.visitIntInsn(operation, limit ? Byte.MAX_VALUE : operand);
                    }
                };
            }
        };
    }

    /**
     * Its static initialiser replaces a final field of H2, which Java 12 and later forbid; only the singleton is
     * needed.
     */
    private static ClassVisitor leavingFinalFieldsAlone(ClassWriter writer) {
        return new ClassVisitor(ASM7, writer) {
            @Override
            public MethodVisitor visitMethod(int access, String name, String type, String generic, String[] thrown) {
                return name.equals("<clinit>") ? null : super.visitMethod(access, name, type, generic, thrown);
            }

            @Override
            public void visitEnd() {
                MethodVisitor method = super.visitMethod(ACC_STATIC, "<clinit>", "()V", null, null);
                method.visitCode();
                method.visitTypeInsn(NEW, DATA_SOURCES);
                method.visitInsn(DUP);
                method.visitMethodInsn(INVOKESPECIAL, DATA_SOURCES, "<init>", "()V", false);
                method.visitFieldInsn(PUTSTATIC, DATA_SOURCES, "INSTANCE", "L" + DATA_SOURCES + ";");
                method.visitInsn(RETURN);
                method.visitMaxs(2, 0);
                method.visitEnd();
                super.visitEnd();
            }
        };
    }
}
