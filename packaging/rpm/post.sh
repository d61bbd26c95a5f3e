/usr/libexec/tenantry/choose-unit
systemd-sysusers tenantry.conf >/dev/null 2>&1 || :
install -d -m 0750 -g tenantry /etc/tenantry/credentials || :
journalctl --update-catalog >/dev/null 2>&1 || :
systemctl --system daemon-reload >/dev/null 2>&1 || :
# 1: installed for the first time. The distribution's presets decide, and theirs is to leave it off.
[ "$1" -ne 1 ] || systemctl --no-reload preset tenantry.service >/dev/null 2>&1 || :
