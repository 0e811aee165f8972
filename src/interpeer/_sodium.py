import ctypes, os
_lib = ctypes.CDLL(os.environ.get("INTERPEER_LIBSODIUM") or os.path.join(os.path.dirname(__file__), "_lib", "libsodium.so"))
def address(name):
    try: return ctypes.cast(getattr(_lib, name), ctypes.c_void_p).value
    except AttributeError: return 0
