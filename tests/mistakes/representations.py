"""Values of one representation where another is declared."""

import foldfuse as ff

from .case import mistake

Word = ff.Rep("Word", ff.f32[4])
Sound = ff.Rep("Sound", ff.f32[4])
Meaning = ff.Rep("Meaning", ff.f32[4])
State = ff.Rep("State", (ff.f32[4], ff.f32[4]))


@mistake(ff.RepresentationError, "dense(4)", "declared as Sound", "what stands there is Meaning")
def composed():
    read = ff.dense(4) >> Meaning
    speak = ff.dense(4)
    listen = speak.typed(Sound, Meaning)
    both = read.typed(Word, Meaning) >> listen  # here
    return ff.compile(both, Word)


@mistake(ff.RepresentationError, "declared as Word", "what stands there is Sound")
def composed_inside_a_map():
    encode = ff.tanh >> Sound
    pairs = ff.map(encode >> ff.tanh.typed(Word, ff.f32[4]))  # here
    return ff.compile(pairs, ff.Seq(ff.f32[4]))


@mistake(ff.RepresentationError, "the input of tanh", "declared as Word", "what stands there is f32[4]", "Word(…)")
def unnamed_where_a_name_is_declared():
    return ff.compile(ff.tanh.typed(Word, ff.f32[4]), ff.f32[4])  # here


@mistake(ff.RepresentationError, "the result of tanh", "declared as Meaning", "f32[4]")
def result_without_its_name():
    return ff.compile(ff.tanh.typed(Word, Meaning), Word)  # here


@mistake(ff.RepresentationError, "the input of step", "declared as Sound", "Word")
def called_in_a_function():
    step = ff.expression(lambda x: x + 1, "step").typed(Sound, ff.f32[4])

    def program(x):
        y = ff.tanh(x)
        return step(Word(y))  # here

    return ff.compile(program, ff.f32[4])


@mistake(ff.RepresentationError, "declared as State", "(f32[4], f32[4])")
def product():
    first = ff.expression(lambda p: p[0], "first").typed(State, ff.f32[4])
    return ff.compile(lambda x: first((x, x)), ff.f32[4])  # here


@mistake(ff.RepresentationError, "declared as Seq(Word)", "Seq(f32[4])")
def list_of_unnamed():
    total = ff.sum.typed(ff.Seq(Word), ff.f32[4])
    return ff.compile(lambda xs: total(xs), ff.Seq(ff.f32[4]))  # here


@mistake(ff.RepresentationError, "what Word(…) names", "f32[3]", "f32[4]")
def named_with_another_shape():
    return ff.compile(lambda x: Word(x), ff.f32[3])  # here


@mistake(ff.RepresentationError, "fold(<lambda>)", "takes the carry Meaning", "gives f32[4]", "Name the new carry too")
def carry_loses_its_name():
    def program(xs, m):
        return ff.fold(lambda s, x: s + x, init=m)(xs)  # here

    return ff.compile(program, ff.Seq(ff.f32[4]), Meaning)


@mistake(ff.TraceError, "Word(…) names a value of a program")
def named_outside_of_a_program():
    return Word(3.0)  # here


@mistake(ff.StructureError, "7 is not a type", "ff.f32[64]")
def of_no_type():
    return ff.Rep("Word", 7)  # here
