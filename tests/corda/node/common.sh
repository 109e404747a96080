# What the programs here share that judge the service with Corda 4.10's own code: it is sourced, with NOTARY set to the worker's
# binary, by tests/corda/nodes, peers and soak. The node comes from Maven Central once, and from ~/.m2 from then on. Java 17 is
# newer than it knows: src/agent and jvm.args say what that takes. The network, which takes a minute or more to make, is kept in
# target/nodes as long as its ports are free. Its certificates are below Corda's own development root, which ends on 2027-05-20.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
readonly ROOT=$PWD
readonly SOURCE=$ROOT/tests/corda/node
readonly OUT=$ROOT/target/nodes
readonly NODE_ARGS=$OUT/node.args
# What the judge of the other sessions has too.
readonly SHARED=("$ROOT"/tests/corda/src/judge/{Conversation,Corda,Network,Transactions,Verdicts}.java)

# How many worker folders the network has. A client asks again for a lost answer only if there is more than one.
readonly WORKERS=2

# --- building -------------------------------------------------------------------------------------------------------------------

# hash FILE...: changes with the files.
hash() {
    cat "$@" | sha256sum | cut -d ' ' -f 1
}

# The dependencies come once. One retry: the network may hiccup.
fetch() {
    local maven=(mvn -q -B -ntp -Dstyle.color=never -f "$SOURCE/pom.xml" compile)
    if ! "${maven[@]}" >"$OUT/maven.log" 2>&1 && ! "${maven[@]}" >"$OUT/maven.log" 2>&1; then
        cat "$OUT/maven.log"
        return 1
    fi
}

compile() {
    local lint=-Xlint:all,-options,-processing,-serial,-classfile,-path part
    rm -rf "$OUT/classes"
    for part in agent coin judges; do
        mkdir -p "$OUT/classes/$part"
    done
    javac "$lint" -Werror --release 17 -cp "$OUT/capsule/*" -d "$OUT/classes/agent" "$SOURCE"/src/agent/*.java
    # As CorDapps are built: for the node's own Java, with the names of constructor arguments, which serialization needs.
    javac "$lint" -Werror --release 8 -parameters -cp "$OUT/capsule/*" -d "$OUT/classes/coin" "$SOURCE"/src/coin/*.java
    javac "$lint" -Werror --release 17 -parameters -cp "$OUT/classes/coin:$OUT/capsule/*" -d "$OUT/classes/judges" \
        "$SOURCE"/src/{nodes,peers}/*.java "${SHARED[@]}"
    printf 'Premain-Class: agent.Java17\n' >"$OUT/agent.mf"
    jar -c -f "$OUT/agent.jar" -m "$OUT/agent.mf" -C "$OUT/classes/agent" .
    jar -c -f "$OUT/coin.jar" -m "$SOURCE/coin.mf" -C "$OUT/classes/coin" .
}

# arguments HEAP LINE...: what Java is started with, as a file for it.
arguments() {
    local heap=$1
    shift
    cat "$SOURCE/jvm.args"
    printf '%s\n' "-Xmx$heap" "-Dlog4j2.configurationFile=$SOURCE/log4j2.xml" "$@"
}

build() {
    mkdir -p "$OUT"
    # A node's broker blocks every producer beyond that, and says so only in its log: flows time out, whatever the workers do.
    local used
    used=$(df --output=size,avail "$OUT" | awk 'NR == 2 { print int(100 - 100 * $2 / $1) }')
    if ((used >= 90)); then
        echo "the disk is ${used} % full: the brokers of Corda's nodes stop at 90 %"
        return 1
    fi
    local now
    now=$(find "$SOURCE" "${SHARED[@]}" -type f -print0 | sort -z | xargs -0 cat | sha256sum)
    if [[ -e $OUT/built && $(<"$OUT/built") == "$now" ]]; then
        return
    fi
    rm -f "$OUT/built"
    fetch
    compile
    # Which agent the node needs, and with which options: a folded line of the capsule's manifest.
    local quasar
    quasar=$(tr -d '\r' <"$OUT/capsule/META-INF/MANIFEST.MF" | sed -e ':a;N;$!ba;s/\n //g' | sed -n 's/^Java-Agents: //p')
    # Our agent first: it changes Quasar's.
    arguments 700m "-javaagent:$OUT/agent.jar" "-javaagent:$OUT/capsule/$quasar" "-cp \"$OUT/capsule/*\"" >"$NODE_ARGS"
    arguments 900m -Dnodes.log=error -Dnodes.log.bridges=error "-cp \"$OUT/classes/judges:$OUT/coin.jar:$OUT/capsule/*\"" >"$OUT/judge.args"
    printf '%s' "$now" >"$OUT/built"
}

# judge PROGRAM OPTION...: one of the programs of src/.
judge() {
    local program=$1
    shift
    java @"$OUT/judge.args" "$program.Main" "$@"
}

# Keeps the network that was made before if it would be made the same today and its ports are free.
make_network() {
    local now
    now=$(hash "$SOURCE"/pom.xml "$SOURCE"/src/coin/*.java "$SOURCE"/src/nodes/{Network,Ports}.java)
    if [[ -e $OUT/network/made-from && $(<"$OUT/network/made-from") == "$now" ]] && judge nodes free "$OUT/network" >/dev/null; then
        return
    fi
    echo "-- making a network with Corda's bootstrapper, which takes a minute or more"
    rm -rf "$OUT/network"
    if ! judge nodes make "$OUT/network" --workers "$WORKERS" --cordapp "$OUT/coin.jar" --node-args "$NODE_ARGS" \
        >"$OUT/network.log" 2>&1; then
        tail -n 40 "$OUT/network.log"
        return 1
    fi
    printf '%s' "$now" >"$OUT/network/made-from"
}

# --- PostgreSQL -----------------------------------------------------------------------------------------------------------------

# It refuses to run as root.
as_postgres() {
    if [[ $(id -u) == 0 ]]; then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

postgres=
database=

# Starts an empty server on a free loopback port.
start_server() {
    local bin owner=postgres
    bin=$(dirname "$(find /usr/lib/postgresql -name initdb 2>/dev/null | sort | tail -n 1)")
    postgres=$scratch/postgres
    database=127.0.0.1:$(judge nodes port)/postgres
    printf 'owner' >"$scratch/owner"
    (umask 077 && printf 'worker' >"$scratch/worker")
    mkdir "$postgres"
    # The server's user must reach it.
    chmod 711 "$scratch"
    chmod 644 "$scratch/owner"
    if [[ $(id -u) == 0 ]]; then
        chown postgres "$postgres"
    fi
    as_postgres "$bin/initdb" -D "$postgres/data" -U "$owner" -A scram-sha-256 --pwfile="$scratch/owner" -E UTF8 --no-locale \
        --data-checksums >"$postgres.log" 2>&1
    local port=${database#*:}
    as_postgres "$bin/pg_ctl" -D "$postgres/data" -w -l "$postgres/log" \
        -o "-p ${port%/*} -c listen_addresses=127.0.0.1 -c unix_socket_directories=$postgres" start >>"$postgres.log" 2>&1
}

# The same, with the tables and the role of the workers.
start_postgres() {
    start_server
    "$NOTARY" db apply --url "postgresql://postgres@$database" --password-ref "file:$scratch/owner" \
        --worker-role notary_worker --worker-password-ref "file:$scratch/worker" >>"$postgres.log"
}

stop_postgres() {
    if [[ -e $postgres/data/postmaster.pid ]]; then
        # An immediate shutdown: the data goes with it.
        kill -QUIT "$(head -n 1 "$postgres/data/postmaster.pid")" 2>/dev/null || true
    fi
}

# --- Artemis --------------------------------------------------------------------------------------------------------------------

readonly ARTEMIS_VERSION=2.40.0
artemis=

# Where tests/services/artemis.rs installs it as well.
install_artemis() {
    local tools=$ROOT/target/tools/artemis
    artemis_home=$tools/apache-artemis-$ARTEMIS_VERSION
    mkdir -p "$tools"
    (
        flock 9
        if [[ ! -e $tools/$ARTEMIS_VERSION.installed ]]; then
            cd "$tools"
            mvn -q -B dependency:copy "-Dartifact=org.apache.activemq:apache-artemis:$ARTEMIS_VERSION:zip:bin" -DoutputDirectory=.
            jar xf "apache-artemis-$ARTEMIS_VERSION-bin.zip"
            chmod +x "$artemis_home/bin/artemis"
            touch "$ARTEMIS_VERSION.installed"
        fi
    ) 9>"$tools/lock"
}

# Makes a broker with an acceptor for each worker, as broker/artemis/peers says, at the address and with the certificate of its
# folder; and lets the program declare what it needs. The judge starts it. Then `artemis_settings` are what workers need.
make_artemis() {
    install_artemis
    artemis=$scratch/artemis
    local port etc=$artemis/etc declared=$ROOT/broker/artemis/peers folder number=0 acceptors= name
    port=$(judge nodes port)
    "$artemis_home/bin/artemis" create "$artemis" --silent --user admin --password admin --require-login --no-web --no-autotune \
        --nio --host 127.0.0.1 --default-port "$port" --no-amqp-acceptor --no-mqtt-acceptor --no-stomp-acceptor \
        --no-hornetq-acceptor >"$scratch/artemis.log"
    for folder in "$scratch"/network/worker-*/; do
        number=$((number + 1))
        acceptors+=$(sed -n '/<acceptor name="peers">/p' "$declared/broker.xml" | sed \
            -e "s#\"peers\"#\"peers-$number\"#" -e "s#0.0.0.0:10002#$(address "$folder")#" \
            -e "s#etc/worker-tls.p12;keyStorePassword=CHANGE-ME#${folder}certificates/sslkeystore.jks;keyStorePassword=cordacadevpass#" \
            -e "s#etc/network-root.p12;trustStorePassword=CHANGE-ME#${folder}certificates/truststore.jks;trustStorePassword=trustpass#")
    done
    # What hangs is noticed as soon as on the acceptors that are declared.
    awk -v acceptors="$acceptors" '/<\/acceptors>/ { print acceptors } { print }' "$etc/broker.xml" \
        | sed "s#\(tcp://127.0.0.1:$port?\)#\1amqpIdleTimeout=10000;#" >"$etc/merged.xml"
    mv "$etc/merged.xml" "$etc/broker.xml"
    cat "$declared/login.config" >>"$etc/login.config"
    cp "$declared"/peer-*.properties "$etc"
    artemis_settings=(broker.kind=artemis broker.senders=peers "broker.hosts=127.0.0.1:$port"
        'broker.user=worker{number}' "broker.password=file:$scratch/secrets/worker{number}.password")
    printf 'admin' >"$scratch/admin"
    declare_on_artemis
}

declare_on_artemis() {
    local number setting pid status=0
    JAVA_ARGS="-Xms64M -Xmx384M -XX:+UseSerialGC -XX:TieredStopAtLevel=1" "$artemis/bin/artemis" run >"$scratch/declaring.log" 2>&1 &
    pid=$!
    until grep -q AMQ221007 "$scratch/declaring.log"; do
        kill -0 "$pid" || { cat "$scratch/declaring.log" && return 1; }
        sleep 0.2
    done
    mkdir "$scratch/secrets"
    for ((number = 1; number <= WORKERS && status == 0; number++)); do
        local apply=("$NOTARY" broker apply --corda-node "$scratch/network/worker-$number" --secrets "$scratch/secrets")
        for setting in "${artemis_settings[@]//\{number\}/$number}" broker.management_user=admin \
            "broker.management_password=file:$scratch/admin"; do
            apply+=(--set "$setting")
        done
        "${apply[@]}" >>"$scratch/artemis.log" || status=$?
    done
    kill "$pid"
    wait "$pid" || true
    [[ $status == 0 ]] || cat "$scratch/artemis.log"
    return "$status"
}

# --- the run --------------------------------------------------------------------------------------------------------------------

scratch=$(mktemp -d)
judging=

# What failed can be looked into afterwards.
keep_logs() {
    if [[ -d $scratch/logs ]]; then
        rm -rf "$OUT/logs"
        cp -r "$scratch/logs" "$OUT/logs"
    fi
}

# The judge ends its nodes and workers by their pids when it ends; so it must not be killed.
finish() {
    if [[ -n $judging ]]; then
        kill -TERM "$judging" 2>/dev/null || true
        wait "$judging" || true
    fi
    stop_postgres
    keep_logs
    rm -rf "$scratch"
}
trap finish EXIT

# address FOLDER: where a node is reached by others.
address() {
    sed -n 's/^p2pAddress *= *"\(.*\)"$/\1/p' "$1/node.conf"
}

# A copy of the network, in which workers of ours can serve in the place of Corda's.
prepare() {
    cp -r "$OUT/network" "$scratch/network"
}

# Workers by this command, in the folder that the judge puts in.
worker=()

# serve_from_postgres SETTING...: starts a server, and completes the workers' command.
serve_from_postgres() {
    local setting
    start_postgres
    worker=("$NOTARY" run --corda-node '{folder}')
    for setting in store.kind=postgres "store.url=postgresql://notary_worker@$database" \
        "store.password=file:$scratch/worker" observe.listen=127.0.0.1:0 "$@"; do
        worker+=(--set "$setting")
    done
}

# drive WHAT PROGRAM OPTION...: runs a judge, and shows how logs end if a claim is false. `judging` and `scratch` are for the trap.
drive() {
    local what=$1 log
    shift
    echo "-- $what"
    rm -rf "$scratch/logs"
    mkdir "$scratch/logs"
    judge "$@" &
    judging=$!
    local status=0
    wait "$judging" || status=$?
    judging=
    keep_logs
    if [[ $status != 0 ]]; then
        for log in "$OUT"/logs/*.log; do
            printf '\n-- %s ends with:\n' "$log"
            tail -n 25 "$log" | cut -c 1-300
        done
    fi
    return "$status"
}
