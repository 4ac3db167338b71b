#!/bin/bash
# What dist-check.sh runs as root within the bare Debian, at its first start and at its second.
set -euo pipefail
cd /root/check

fail() { echo "dist-check-inside.sh: $*" >&2; journalctl --unit streamgate --no-pager | tail -n 20 >&2; exit 1; }
say() { echo "ok    $*"; }
serves() {
    local told
    for _ in $(seq 100); do
        told=$(streamgate health 2>&1) && return 0
        sleep 0.2
    done
    fail "it does not serve: $told"
}
of_the_unit() { systemctl show streamgate --property "$1" --value; }
journal_says() { journalctl --unit streamgate --no-pager --output cat | grep -q -- "$1" || fail "the journal does not say: $1"; }
follow_page() { (cd downloads && bash -euo pipefail ../"$1"); }

check_unit() {
    serves
    [ "$(of_the_unit ActiveState)" = active ] || fail "the unit is $(of_the_unit ActiveState)"
    [ "$(stat --format %U "/proc/$(of_the_unit MainPID)")" = streamgate ] || fail 'it does not run as streamgate'
    journal_says serving
}

package() {
    follow_page package
    check_unit
    say 'the package: the unit serves as streamgate, and logs to the journal'

    kill -s KILL "$(of_the_unit MainPID)"
    for _ in $(seq 100); do
        [ "$(of_the_unit NRestarts)" = 0 ] || break
        sleep 0.2
    done
    [ "$(of_the_unit NRestarts)" = 1 ] || fail 'killed, it is not started again'
    check_unit
    systemctl restart streamgate
    check_unit
    journal_says 'stopped: everything was delivered'
    say 'it is back after a kill and after a restart, for which it drained'

    sed -i 's/^  default: 3$/  default: 5/' /etc/streamgate/streamgate.yaml
    systemctl reload streamgate
    for _ in $(seq 100); do
        told=$(streamgate sessions alice)
        [ "$told" != 'alice: 0 of 5 streams in use' ] || break
        sleep 0.2
    done
    [ "$told" = 'alice: 0 of 5 streams in use' ] || fail "reloaded with 5 streams, it says: $told"
    echo 'limits: {defualt: 5}' >/etc/streamgate/wrong.yaml
    chmod 644 /etc/streamgate/wrong.yaml
    ! streamgate check-config /etc/streamgate/wrong.yaml || fail 'a wrong file passes'
    say 'systemctl reload takes over a changed file'
    systemd-analyze security --no-pager streamgate | tail -n 1
}

rebooted() {
    check_unit
    [ "$(streamgate sessions alice)" = 'alice: 0 of 5 streams in use' ] || fail 'after a reboot the file is another'
    say 'it is back after a reboot'

    apt-get purge -qq -y streamgate >/dev/null
    ! command -v streamgate || fail 'purged, the program is still there'
    [ ! -e /etc/streamgate/streamgate.yaml ] || fail 'purged, the configuration is still there'
    rm -rf /etc/streamgate
    userdel streamgate
    say 'purged, it is gone'

    hash -r
    follow_page archive
    check_unit
    say 'the archive: the unit serves as streamgate, and logs to the journal'
    systemctl disable --quiet --now streamgate
}

case $(cat stage) in
installed) package ;;
rebooted) rebooted ;;
esac
