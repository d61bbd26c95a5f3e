# 0: removed, not replaced by a newer one.
[ "$1" -ne 0 ] || systemctl --no-reload disable --now tenantry.service >/dev/null 2>&1 || :
