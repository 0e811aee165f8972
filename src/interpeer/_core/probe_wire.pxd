from interpeer._core.wire cimport Frame, Parameters

cdef tuple frame_of(Frame *f)
cdef dict parameters_to_dict(const Parameters *p)
cdef int parameters_from_dict(dict values, Parameters *p) except -1
